-- The demo's sample shop: 500 customers, 1500 orders, their payments, and a small payroll.
-- Every name, number and address is made up by arithmetic: the same rows on every run, nobody's data.
-- Telephone numbers are from the block kept for fiction, mail domains are the reserved ones, and no card
-- or social-security number was ever issued by us or taken from anywhere.
-- Run in an empty database by its owner. Roles get their passwords from whoever runs this file.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shop_reader') THEN
        CREATE ROLE shop_reader LOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'shop_dpo') THEN
        CREATE ROLE shop_dpo LOGIN;
    END IF;
END
$$;

CREATE TABLE public.customers (
    id          integer PRIMARY KEY,
    full_name   text NOT NULL,
    email       text NOT NULL,
    ssn         text NOT NULL,
    phone       text,
    birth_date  date NOT NULL,
    city        text NOT NULL,
    created_at  timestamptz NOT NULL
);

CREATE TABLE public.orders (
    id          integer PRIMARY KEY,
    customer_id integer NOT NULL REFERENCES public.customers (id),
    item        text NOT NULL,
    quantity    integer NOT NULL,
    amount      numeric(10, 2) NOT NULL,
    status      text NOT NULL,
    ordered_at  timestamptz NOT NULL
);

CREATE TABLE public.payments (
    id          integer PRIMARY KEY,
    order_id    integer NOT NULL REFERENCES public.orders (id),
    brand       text NOT NULL,
    card_number text NOT NULL,
    amount      numeric(10, 2) NOT NULL,
    paid_at     timestamptz NOT NULL
);

CREATE SCHEMA hr;

CREATE TABLE hr.salaries (
    id          integer PRIMARY KEY,
    full_name   text NOT NULL,
    position    text NOT NULL,
    salary      numeric(10, 2) NOT NULL
);

WITH words AS (
    SELECT
        ARRAY['Ada', 'Bruno', 'Carla', 'Dimitri', 'Elena', 'Farid', 'Greta', 'Hugo', 'Ines', 'Jonas', 'Kira',
              'Liam', 'Maya', 'Nils', 'Olga', 'Pablo', 'Qiu', 'Rosa', 'Samir', 'Tara', 'Umar', 'Vera', 'Wendell',
              'Xenia', 'Yara', 'Zeno', 'Amara', 'Boris', 'Chiara', 'Derek'] AS first_names,
        ARRAY['Abbott', 'Becker', 'Castillo', 'Dubois', 'Eriksen', 'Ferrari', 'Goldberg', 'Haddad', 'Ivanova',
              'Jansen', 'Kowalski', 'Lindgren', 'Moreau', 'Novak', 'Okafor', 'Pereira', 'Quinn', 'Rossi',
              'Schneider', 'Tanaka', 'Ueda', 'Vogel', 'Whitfield', 'Ximenes', 'Yilmaz', 'Zhang', 'Almeida',
              'Brennan', 'Costa', 'Duarte', 'Engel'] AS last_names,
        ARRAY['Boston', 'Chicago', 'Denver', 'Houston', 'Miami', 'Portland', 'Seattle'] AS cities,
        ARRAY['617', '312', '303', '713', '305', '503', '206'] AS area_codes,
        ARRAY['example.com', 'example.org', 'example.net'] AS domains
), people AS (
    SELECT i,
           first_names[1 + (i * 7) % 30] AS first_name,
           last_names[1 + (i * 11) % 31] AS last_name,
           domains[1 + i % 3] AS domain,
           cities[1 + (i * 5) % 7] AS city,
           area_codes[1 + (i * 5) % 7] AS area_code
    FROM words, generate_series(1, 500) AS i
)
INSERT INTO public.customers
SELECT i,
       first_name || ' ' || last_name,
       lower(first_name) || '.' || lower(last_name) || i || '@' || domain,
       lpad((100 + (i * 37) % 560)::text, 3, '0') || '-' || lpad((1 + (i * 53) % 98)::text, 2, '0')
           || '-' || lpad((1 + (i * 7919) % 9998)::text, 4, '0'),
       CASE WHEN i % 25 = 0 THEN NULL
            ELSE '+1-' || area_code || '-555-' || lpad((100 + (i * 13) % 100)::text, 4, '0') END,
       date '1950-01-01' + (i * 9973) % 19000,
       city,
       timestamptz '2024-01-01 08:00:00+00' + i * interval '31 hours 17 minutes'
FROM people;

INSERT INTO public.orders
SELECT i,
       1 + (i * 97) % 500,
       (ARRAY['desk lamp', 'notebook', 'backpack', 'water bottle', 'headphones', 'keyboard', 'coffee grinder',
              'rain jacket', 'board game', 'tea set'])[1 + (i * 3) % 10],
       1 + i % 4,
       ((1 + i % 4) * (9 + (i * 29) % 140) + 0.95)::numeric(10, 2),
       (ARRAY['paid', 'paid', 'shipped', 'shipped', 'cancelled'])[1 + i % 5],
       timestamptz '2026-01-01 09:00:00+00' + i * interval '5 hours 11 minutes'
FROM generate_series(1, 1500) AS i;

-- Card numbers carry a correct check digit (Luhn), so that they look to a detector like the real thing.
WITH bodies AS (
    SELECT id AS order_id, amount, ordered_at, id % 2 = 0 AS visa,
           CASE WHEN id % 2 = 0 THEN '400000' ELSE '510000' END
               || lpad(((id::bigint * 7368787) % 1000000000)::text, 9, '0') AS body
    FROM public.orders
    WHERE status <> 'cancelled'
), sums AS (
    SELECT order_id, amount, ordered_at, visa, body,
           (SELECT sum(CASE WHEN k % 2 = 1 THEN (d * 2) / 10 + (d * 2) % 10 ELSE d END)
            FROM (SELECT k, substr(body, k, 1)::integer AS d FROM generate_series(1, 15) AS k) AS digits) AS total
    FROM bodies
)
INSERT INTO public.payments
SELECT row_number() OVER (ORDER BY order_id),
       order_id,
       CASE WHEN visa THEN 'visa' ELSE 'mastercard' END,
       body || (10 - total % 10) % 10,
       amount,
       ordered_at + interval '4 minutes'
FROM sums;

INSERT INTO hr.salaries
SELECT i,
       (ARRAY['Noor Vance', 'Theo Marsh', 'Ida Falk', 'Sol Reyes', 'Wim Adler', 'Ana Brook'])[i],
       (ARRAY['people lead', 'engineer', 'engineer', 'support', 'finance', 'warehouse'])[i],
       52000 + (i * 7919) % 61000
FROM generate_series(1, 6) AS i;

CREATE INDEX ON public.orders (customer_id);
CREATE INDEX ON public.payments (order_id);

GRANT USAGE ON SCHEMA public, hr TO shop_reader, shop_dpo;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO shop_reader, shop_dpo;
GRANT SELECT ON ALL TABLES IN SCHEMA hr TO shop_reader;
ANALYZE public.customers, public.orders, public.payments;
