-- Other values of the same stored width: the order is turned round, NULLs and structure stay. Session-local.
-- Arrays of two or more elements get one fewer: an element is four bytes and its text, filled up to a multiple of four.
-- Upper-case letters and punctuation stay, so that patterns that CHECK constraints ask for still hold.
CREATE FUNCTION pg_temp.twist_text(v text) RETURNS text LANGUAGE sql AS
$$ SELECT translate(v, 'abcdefghijklmnopqrstuvwxyz0123456789', 'zyxwvutsrqponmlkjihgfedcba9876543210') $$;
CREATE FUNCTION pg_temp.twist_hex(v text) RETURNS text LANGUAGE sql AS
$$ SELECT translate(v, '0123456789abcdef', 'fedcba9876543210') $$;
CREATE FUNCTION pg_temp.twist_number(v numeric) RETURNS numeric LANGUAGE sql AS
$$ SELECT CASE WHEN v < 100 THEN 100 - v WHEN v < 165000 THEN 169999 - v
               WHEN v >= 100000000 THEN 1099999999 - v ELSE v END $$;
CREATE FUNCTION pg_temp.twist_json(v jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  CASE jsonb_typeof(v)
    WHEN 'string' THEN RETURN to_jsonb(pg_temp.twist_text(v #>> '{}'));
    WHEN 'number' THEN RETURN CASE WHEN v::numeric >= 100000000 THEN to_jsonb(pg_temp.twist_number(v::numeric)) ELSE v END;
    WHEN 'object' THEN RETURN (SELECT jsonb_object_agg(pg_temp.twist_text(key), pg_temp.twist_json(value)) FROM jsonb_each(v));
    WHEN 'array' THEN RETURN (SELECT jsonb_agg(pg_temp.twist_json(value)) FROM jsonb_array_elements(v));
    ELSE RETURN v;
  END CASE;
END $$;
CREATE FUNCTION pg_temp.twist_array(v text[]) RETURNS text[] LANGUAGE sql AS $$
  SELECT CASE WHEN array_ndims(v) = 1 AND cardinality(v) > 1 AND v[1] IS NOT NULL AND v[2] IS NOT NULL
    THEN rpad(pg_temp.twist_text(v[1] || v[2]), 4 * ((octet_length(v[1]) + 3) / 4 + (octet_length(v[2]) + 3) / 4) + 4, '-') || v[3:]
    ELSE ARRAY(SELECT pg_temp.twist_text(e) FROM unnest(v) WITH ORDINALITY AS u(e, n) ORDER BY n) END $$;
