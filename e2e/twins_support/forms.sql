SELECT a FROM {t} a LIMIT 3
SELECT (a).{s}, (a).* FROM {t} a LIMIT 3
SELECT a.*::text FROM {t} a LIMIT 3
SELECT {s}(a) FROM {t} a LIMIT 3
SELECT row_to_json(a), to_jsonb(a) - '{su}' FROM {t} a LIMIT 3
SELECT a = a FROM {t} a LIMIT 3
SELECT a IS NOT DISTINCT FROM b FROM {t} a, {t} b LIMIT 3
SELECT count(*) FROM {t} a JOIN {t} b USING ({s})
SELECT count(*) FROM {t} a NATURAL JOIN {t} b
SELECT {k} FROM {t} a ORDER BY {s} LIMIT 5
SELECT {k}, {s} FROM {t} a ORDER BY 2 LIMIT 5
SELECT {s} AS x, {k} FROM {t} a ORDER BY x LIMIT 5
SELECT {k} FROM {t} a ORDER BY a LIMIT 5
SELECT DISTINCT {s} FROM {t} a LIMIT 5
SELECT DISTINCT a FROM {t} a LIMIT 5
SELECT DISTINCT ON ({s}) {k} FROM {t} a
SELECT count(*) FROM {t} a GROUP BY {s}
SELECT {s}, count(*) FROM {t} a GROUP BY 1 LIMIT 5
SELECT {u}, count(*) FROM {t} a GROUP BY GROUPING SETS (({u}), ({s}), ())
SELECT count(*) FROM {t} a GROUP BY CUBE ({u}, {s})
SELECT count(*) FROM {t} a HAVING max({s}::text) > 'm'
SELECT count(DISTINCT {s}) FROM {t} a
SELECT count(*) FILTER (WHERE {s}::text > 'm') FROM {t} a
SELECT array_agg({k} ORDER BY {s}) FROM {t} a
SELECT string_agg({s}::text, ',' ORDER BY {k}) FROM {t} a
SELECT min({s}), max({s}) FROM {t} a
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY {s}) FROM {t} a
SELECT rank() OVER (ORDER BY {s}), {k} FROM {t} a LIMIT 5
SELECT count(*) OVER (PARTITION BY {s}), {k} FROM {t} a LIMIT 5
SELECT lag({s}) OVER w, first_value({s}) OVER w FROM {t} a WINDOW w AS (ORDER BY {k}) LIMIT 5
SELECT row_number() OVER w FROM {t} a WINDOW w AS (PARTITION BY {s} ORDER BY {k}) LIMIT 5
SELECT CASE WHEN {s} IS NULL THEN 1 ELSE 2 END FROM {t} a LIMIT 5
SELECT CASE {s}::text WHEN 'x' THEN 1 ELSE 2 END FROM {t} a LIMIT 5
SELECT coalesce({s}::text, 'none'), nullif({s}::text, 'x'), greatest({s}, {s}) FROM {t} a LIMIT 5
SELECT {s} IS NULL, {s} IS NOT NULL FROM {t} a LIMIT 5
SELECT {k} FROM {t} a WHERE {s} IS NULL
SELECT {k} FROM {t} a WHERE {e}
SELECT {k} FROM {t} a WHERE {s} = (SELECT max({s}) FROM {t})
SELECT {k} FROM {t} a WHERE {s} IN (SELECT {s} FROM {t} WHERE {k} < 5)
SELECT {k} FROM {t} a WHERE {s} = ANY (ARRAY(SELECT {s} FROM {t} WHERE {k} < 5))
SELECT {k} FROM {t} a WHERE EXISTS (SELECT FROM {t} b WHERE b.{s} = a.{s} AND b.{k} <> a.{k})
SELECT {k} FROM {t} a WHERE ({k}, {s}) IN (SELECT {k}, {s} FROM {t})
SELECT {k} FROM {t} a WHERE a IS NOT NULL
SELECT {k} FROM {t} a WHERE a > ROW(1)
SELECT {k} FROM {t} a LIMIT (SELECT length(max({s}::text)) FROM {t})
SELECT {k} FROM {t} a LIMIT 3 OFFSET (SELECT count(*) FROM {t} WHERE {s}::text > 'm')
SELECT {s} FROM {t} a UNION SELECT {s} FROM {t} b
SELECT {s} FROM {t} a EXCEPT SELECT {s} FROM {t} b
SELECT {s} FROM {t} a INTERSECT ALL SELECT {s} FROM {t} b WHERE {k} < 9
SELECT x FROM (SELECT {s} AS x FROM {t} a UNION ALL SELECT {s} FROM {t} b) q LIMIT 5
SELECT x, y FROM (VALUES (1, (SELECT max({s}) FROM {t})), (2, NULL)) v(x, y)
SELECT * FROM {t} a, LATERAL (SELECT a.{s} AS z) l LIMIT 3
SELECT * FROM {t} a, LATERAL (SELECT count(*) FROM {t} b WHERE b.{s} < a.{s}) l LIMIT 3
SELECT g FROM {t} a, generate_series(1, length({s}::text)) g LIMIT 5
SELECT x FROM {t} a, unnest(ARRAY[{s}]) x LIMIT 5
SELECT x FROM {t} a, unnest(string_to_array({s}::text, '-')) x LIMIT 5
SELECT * FROM ROWS FROM (generate_series(1, 2), unnest(ARRAY(SELECT {s} FROM {t} LIMIT 2))) AS r(a, b)
SELECT x.a FROM ({t} c JOIN {t} d USING ({k})) AS x(a) LIMIT 3
SELECT * FROM {t} AS x(a, b) LIMIT 3
WITH w AS (SELECT {s} AS v FROM {t} a) SELECT v FROM w WHERE v IS NOT NULL LIMIT 3
WITH w AS MATERIALIZED (SELECT * FROM {t} a) SELECT count(*) FROM w WHERE {s}::text > 'm'
WITH RECURSIVE r(n, v) AS (SELECT 1, {s} FROM {t} a WHERE {k} < 3 UNION SELECT n + 1, v FROM r WHERE n < 3) SELECT * FROM r
WITH RECURSIVE r(n, v) AS (SELECT 1, {s}::text FROM {t} a WHERE {k} < 3 UNION ALL SELECT n + 1, v || 'x' FROM r WHERE n < 3) SELECT * FROM r
SELECT ARRAY(SELECT {s} FROM {t} a WHERE {k} < 3)
SELECT (ARRAY(SELECT {s} FROM {t} a ORDER BY {k}))[1]
SELECT (SELECT {s} FROM {t} a LIMIT 1)::text || 'x'
SELECT json_agg(a) FROM (SELECT * FROM {t} LIMIT 3) a
SELECT json_object_agg({s}::text, {k}) FROM {t} a
SELECT json_build_object('v', {s}), jsonb_build_array({s}, {u}) FROM {t} a LIMIT 3
SELECT xmlforest({s} AS v), xmlelement(name r, {s}) FROM {t} a LIMIT 3
SELECT xmlagg(xmlelement(name r, {s})) FROM {t} a
SELECT table_to_xml('{t}'::regclass, true, false, '')
SELECT query_to_xml('SELECT {s} FROM {t}', true, false, '')
SELECT ctid, {k} FROM {t} a LIMIT 3
SELECT xmin, tableoid::regclass FROM {t} a LIMIT 3
SELECT pg_column_size({s}), pg_column_size(a) FROM {t} a LIMIT 3
SELECT {k} FROM {t} a TABLESAMPLE BERNOULLI (50) REPEATABLE (1)
SELECT {k} FROM {t} a TABLESAMPLE SYSTEM (50) REPEATABLE (1)
SELECT pg_typeof({s}), pg_collation_for({s}::text) FROM {t} a LIMIT 1
SELECT hashtext({s}::text), md5({s}::text) FROM {t} a LIMIT 3
SELECT length({s}::text), octet_length({s}::text) FROM {t} a LIMIT 3
SELECT {s}::text::int FROM {t} a LIMIT 3
SELECT {s}::varchar(2), {s}::text::char(3) FROM {t} a LIMIT 3
SELECT format('%s', {s}), concat({s}, '-'), concat_ws('-', {s}, {u}) FROM {t} a LIMIT 3
SELECT 1 / (length({s}::text) - 11) FROM {t} a LIMIT 3
SELECT {k} / CASE WHEN {s}::text > 'm' THEN 0 ELSE 1 END FROM {t} a LIMIT 3
SELECT pg_sleep(CASE WHEN {s}::text > 'm' THEN 0.01 ELSE 0 END) FROM {t} a LIMIT 1
SELECT set_config('application_name', {s}::text, true) FROM {t} a LIMIT 1
SELECT current_setting('search_path'), current_database(), current_user
SELECT nextval('x'), pg_notify('c', {s}::text) FROM {t} a LIMIT 1
SELECT pg_advisory_xact_lock({k}) FROM {t} a WHERE {s}::text > 'm'
SELECT {k} FROM {t} a WHERE {k} < 3 FOR UPDATE
SELECT {k} FROM {t} a WHERE {s}::text > 'm' FOR SHARE
EXPLAIN SELECT * FROM {t} a
EXPLAIN (COSTS OFF) SELECT {s} FROM {t} a WHERE {k} < 5
EXPLAIN (COSTS OFF) SELECT {k} FROM {t} a WHERE {e}
EXPLAIN SELECT {k} FROM {t} a WHERE {e}
EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) SELECT {k} FROM {t} a WHERE {e}
EXPLAIN (VERBOSE, COSTS OFF) SELECT {s} FROM {t} a
COPY {t} TO STDOUT
COPY {t} ({k}, {s}) TO STDOUT (FORMAT csv, HEADER)
COPY {t} TO STDOUT (FORMAT binary)
COPY (SELECT {s}, {k} FROM {t} a) TO STDOUT (FORMAT csv, FORCE_QUOTE *)
COPY (SELECT {k} FROM {t} a WHERE {e}) TO STDOUT
COPY (SELECT * FROM {t} ORDER BY {s}) TO STDOUT
TABLE {t}
UPDATE {t} a SET {u} = {u} WHERE {k} = 1 RETURNING *
UPDATE {t} a SET {u} = {u} WHERE {e} RETURNING {k}
UPDATE {t} a SET {s} = {s} WHERE {k} = 1
UPDATE {t} a SET {s} = {s2} WHERE {k} = 1 RETURNING {s}
UPDATE {t} a SET {s} = NULL WHERE {k} = 1
UPDATE {t} a SET ({s}, {u}) = (SELECT {s}, {u} FROM {t} WHERE {k} = 2) WHERE {k} = 1
UPDATE {t} a SET {u} = {u} FROM {t} b WHERE a.{s} = b.{s} RETURNING a.{k}
DELETE FROM {t} a WHERE {k} = 1 RETURNING *
DELETE FROM {t} a WHERE {e}
DELETE FROM {t} a USING {t} b WHERE a.{s} < b.{s} AND a.{k} = 1 RETURNING a.{k}
INSERT INTO {t} SELECT * FROM {t} WHERE {k} = 1
INSERT INTO {t} SELECT * FROM {t} WHERE {k} = 1 ON CONFLICT DO NOTHING RETURNING *
INSERT INTO {t} ({k}, {s}) SELECT {k} + 100000, {s} FROM {t} ON CONFLICT ({s}) DO NOTHING
INSERT INTO {t} ({k}) VALUES (100001) ON CONFLICT ({k}) DO UPDATE SET {u} = EXCLUDED.{u} RETURNING *
INSERT INTO {t} ({k}, {s}) VALUES (100002, NULL) RETURNING {s}
WITH w AS (UPDATE {t} SET {u} = {u} WHERE {k} = 1 RETURNING *) SELECT {s}, {k} FROM w
WITH w AS (DELETE FROM {t} WHERE {k} = 1 RETURNING {s}) SELECT count(*) FROM w WHERE {s}::text > 'm'
MERGE INTO {t} a USING {t} b ON a.{k} = b.{k} WHEN MATCHED AND b.{s}::text > 'm' THEN DELETE
MERGE INTO {t} a USING {t} b ON a.{s} = b.{s} WHEN MATCHED THEN DO NOTHING
MERGE INTO {t} a USING {t} b ON a.{k} = b.{k} AND a.{k} = 1 WHEN MATCHED THEN UPDATE SET {u} = b.{u}
CREATE TEMP TABLE mine AS SELECT {s} FROM {t}
CREATE TEMP TABLE mine (i int) ;; INSERT INTO mine SELECT length({s}::text) FROM {t} ;; SELECT * FROM mine LIMIT 3
CREATE TEMP VIEW mine AS SELECT {s} AS v FROM {t} ;; SELECT v FROM mine LIMIT 3
SELECT {s} INTO TEMP mine FROM {t}
DECLARE c CURSOR FOR SELECT {s}, {k} FROM {t} a ORDER BY {k} ;; FETCH 2 FROM c ;; FETCH BACKWARD 1 FROM c
DECLARE c SCROLL CURSOR FOR SELECT {k} FROM {t} a WHERE {e} ;; FETCH ALL FROM c ;; MOVE FIRST IN c ;; CLOSE c
DECLARE c CURSOR FOR SELECT * FROM {t} FOR UPDATE ;; FETCH 1 FROM c ;; UPDATE {t} SET {u} = {u} WHERE CURRENT OF c RETURNING {s}
PREPARE p AS SELECT {s} FROM {t} a LIMIT 2 ;; EXECUTE p
PREPARE p(int) AS SELECT {s} FROM {t} a WHERE {k} = $1 ;; EXECUTE p(1) ;; DEALLOCATE p
PREPARE p(text) AS SELECT {k} FROM {t} a WHERE {s}::text > $1 ;; EXECUTE p('m')
PREPARE p(text) AS SELECT $1 ;; EXECUTE p((SELECT max({s}::text) FROM {t}))
SAVEPOINT s ;; SELECT {s} FROM {t} a LIMIT 1 ;; SELECT 1/0 ;; ROLLBACK TO s ;; SELECT {k} FROM {t} a LIMIT 1
SELECT attname, n_distinct FROM pg_stats WHERE schemaname <> 'pg_catalog' AND attname = '{su}'
SELECT * FROM pg_stats WHERE attname = '{su}'
SELECT most_common_vals::text, histogram_bounds::text FROM pg_stats WHERE schemaname NOT IN ('pg_catalog')
SELECT stavalues1, stanumbers1, stadistinct, stawidth FROM pg_statistic WHERE starelid = '{t}'::regclass
SELECT reltuples, relpages FROM pg_class WHERE oid = '{t}'::regclass
SELECT relname, relpages, reltuples FROM pg_class WHERE relname NOT LIKE 'pg_%' ORDER BY oid
SELECT pg_relation_size('{t}'), pg_total_relation_size('{t}')
SELECT n_live_tup, n_tup_ins FROM pg_stat_user_tables ORDER BY relid
SELECT * FROM pg_stats_ext
SELECT pg_get_viewdef('{t}'::regclass), pg_get_expr(adbin, adrelid) FROM pg_attrdef LIMIT 3
SELECT name, statement FROM pg_prepared_statements
SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()
SELECT query_to_xml_and_xmlschema('SELECT {s} FROM {t}', true, false, '')
SELECT lo_import('/etc/passwd'), pg_read_file('PG_VERSION')
DO $$ BEGIN RAISE NOTICE '%', (SELECT max({s}::text) FROM {t}); END $$
VALUES ((SELECT {s} FROM {t} a LIMIT 1), 1), (NULL, 2)
SELECT {k} FROM {t} a WHERE {k} IN (1, 2) AND ({s}::text = 'x' OR true)
SELECT {k}, {s} FROM {t} a WHERE NOT ({s}::text = 'x') LIMIT 2
SELECT a.{k} FROM {t} a LEFT JOIN {t} b ON a.{s} = b.{s} AND b.{k} = 1 WHERE b.{k} IS NULL LIMIT 5
SELECT a.{s}, b.{s} FROM {t} a FULL JOIN {t} b ON a.{k} = b.{k} + 1 LIMIT 5
SELECT {s}, ({s})::text, ARRAY[{s}], ROW({s}, {u}) FROM {t} a LIMIT 3
SELECT (ROW({s}, {k})).f1 FROM {t} a LIMIT 3
SELECT (x).{s} FROM (SELECT a AS x FROM {t} a) q LIMIT 3
SELECT * FROM jsonb_to_recordset((SELECT jsonb_agg(jsonb_build_object('a', {s})) FROM {t})) AS r(a text) LIMIT 3
SELECT * FROM json_populate_record(NULL::{t}, (SELECT to_json(a) FROM {t} a LIMIT 1))
SELECT key, value FROM {t} a, jsonb_each_text(to_jsonb(a)) LIMIT 5
SELECT * FROM crosstab('SELECT {k}, {u}, {s} FROM {t}') AS c(a int, b text)
SELECT dblink('dbname=x', 'SELECT 1')
SELECT {s} COLLATE "C" FROM {t} a LIMIT 2
SELECT {s} FROM ONLY {t} a LIMIT 2
SELECT count(*), count({s}), sum(length({s}::text)) FROM {t} a
SELECT {k}, {s} FROM {t} a FETCH FIRST 3 ROWS WITH TIES
SELECT {k} FROM {t} a ORDER BY {s} FETCH FIRST 1 ROWS WITH TIES
SELECT {s} FROM {t} a ORDER BY {k} USING > LIMIT 3
SELECT count(*) FROM {t} a WHERE {s} BETWEEN SYMMETRIC {s} AND {s2}
SELECT {k} FROM {t} a WHERE ({s}, {k}) OVERLAPS ({s}, {k})
SELECT lower({s}::text) = upper({s2}::text), ({s} = {s}) AND NULL FROM {t} a LIMIT 3
LOCK TABLE {t}
TRUNCATE {t}
ANALYZE {t}
ALTER TABLE {t} ADD CHECK ({s}::text > 'm')
CREATE INDEX ON {t} (length({s}::text))
CREATE UNIQUE INDEX ON {t} ({s})
SHOW exeat.policy
SET LOCAL work_mem = '1MB' ;; SELECT {s} FROM {t} a LIMIT 1
INSERT INTO {t} ({k}, {s}) VALUES (100001, DEFAULT), (100002, NULL) RETURNING {k}, {s}, {u}
INSERT INTO {t} ({k}) VALUES (1) ON CONFLICT DO NOTHING RETURNING {s}
INSERT INTO {t} ({k}) VALUES (1) ON CONFLICT ({k}) DO UPDATE SET {u} = {t}.{u} WHERE {t}.{s} IS NULL RETURNING *
INSERT INTO {t} AS a ({k}) VALUES (1) ON CONFLICT ({k}) DO UPDATE SET {s} = EXCLUDED.{s}, {u} = a.{u} RETURNING a.{k}
WITH w AS (INSERT INTO {t} ({k}) VALUES (100003) RETURNING *) SELECT w.{k}, a.{s} FROM w, {t} a WHERE a.{k} < 3
UPDATE {t} a SET {u} = DEFAULT WHERE {k} < 3 RETURNING {k}, {s}, {s} IS NULL
UPDATE {t} a SET ({u}, {s}) = ROW({u}, DEFAULT) WHERE {k} = 2 RETURNING {k}
UPDATE {t} a SET {u} = b.{u} FROM (SELECT * FROM {t}) b WHERE a.{k} = b.{k} AND b.{k} < 3 RETURNING a.*, b.{s}
DELETE FROM {t} WHERE {k} IN (SELECT {k} FROM {t} WHERE {s} IS NOT NULL)
DELETE FROM ONLY {t} a WHERE {k} = 1 RETURNING a, {s}::text
MERGE INTO {t} a USING (VALUES (1), (100004)) v(i) ON a.{k} = v.i WHEN MATCHED THEN UPDATE SET {u} = a.{u} WHEN NOT MATCHED THEN INSERT ({k}) VALUES (v.i)
MERGE INTO {t} a USING {t} b ON a.{k} = b.{k} WHEN MATCHED AND a.{s} IS NULL THEN DELETE WHEN NOT MATCHED THEN DO NOTHING
MERGE INTO {t} a USING (SELECT {k} AS i, {s} AS v FROM {t}) b ON a.{k} = b.i WHEN MATCHED THEN UPDATE SET {s} = b.v
WITH w AS (UPDATE {t} SET {u} = {u} WHERE {k} = 1 RETURNING {s} AS v) MERGE INTO {t} a USING w ON a.{k} = 2 WHEN MATCHED THEN UPDATE SET {s} = w.v
CREATE TEMP TABLE mine AS SELECT {k}, {u} FROM {t} ;; INSERT INTO mine SELECT {k}, {u} FROM {t} ;; SELECT count(*), max({k}) FROM mine ;; DROP TABLE mine
CREATE TEMP TABLE mine (i int, v text) ;; INSERT INTO mine VALUES (1, 'a') ;; SELECT m.v, a.{s} FROM mine m JOIN {t} a ON a.{k} = m.i
CREATE TEMP TABLE {t} (i int) ;; SELECT * FROM {t}
CREATE TEMP TABLE mine (LIKE {t} INCLUDING ALL) ;; INSERT INTO mine SELECT * FROM {t} ;; SELECT {s} FROM mine LIMIT 3
CREATE TEMP TABLE mine () INHERITS ({t}) ;; SELECT {s} FROM mine ;; INSERT INTO mine ({k}) VALUES (1) ;; SELECT {s}, {k} FROM {t} WHERE {k} = 1
CREATE TEMP TABLE mine AS SELECT * FROM {t} WITH NO DATA ;; SELECT * FROM mine
SAVEPOINT s ;; CREATE TEMP TABLE mine AS SELECT {u} FROM {t} ;; ROLLBACK TO s ;; SELECT {s} FROM {t} a LIMIT 1 ;; SELECT * FROM mine
CREATE TEMP VIEW mine AS SELECT {k}, {u} FROM {t} WHERE {k} < 5 ;; SELECT * FROM mine ;; CREATE OR REPLACE TEMP VIEW mine AS SELECT {k}, {s}::text AS {u} FROM {t} ;; SELECT * FROM mine LIMIT 3
CREATE TEMP VIEW mine AS SELECT {k} FROM {t} WHERE {e} ;; SELECT count(*) FROM mine
CREATE TEMP VIEW mine AS SELECT * FROM {t} ;; UPDATE mine SET {u} = {u} WHERE {k} = 1 RETURNING * ;; DELETE FROM mine WHERE {s}::text > 'm'
CREATE VIEW public.mine AS SELECT length({s}::text) AS n FROM {t} ;; SELECT n FROM public.mine LIMIT 3
CREATE MATERIALIZED VIEW public.mine AS SELECT {s} FROM {t} ;; SELECT * FROM public.mine LIMIT 3 ;; REFRESH MATERIALIZED VIEW public.mine
ALTER TABLE {t} RENAME COLUMN {s} TO harmless ;; SELECT harmless FROM {t} LIMIT 3
ALTER TABLE {t} ADD COLUMN plain text DEFAULT 'x' ;; UPDATE {t} SET plain = {s}::text ;; SELECT plain FROM {t} LIMIT 3
ALTER TABLE {t} ADD COLUMN plain text GENERATED ALWAYS AS ({s}::text) STORED ;; SELECT plain FROM {t} LIMIT 3
ALTER TABLE {t} ALTER COLUMN {s} TYPE text USING {s}::text ;; SELECT {s} FROM {t} LIMIT 3
ALTER TABLE {t} RENAME TO other ;; CREATE TABLE {t} (i int) ;; SELECT * FROM {t}
CREATE TEMP SEQUENCE mine ;; SELECT nextval('mine'), setval('mine', (SELECT max(length({s}::text)) FROM {t}))
CREATE FUNCTION pg_temp.f(int) RETURNS text LANGUAGE sql AS 'SELECT {s}::text FROM {t} WHERE {k} = $1' ;; SELECT pg_temp.f(1)
CREATE RULE r AS ON UPDATE TO {t} DO ALSO NOTIFY x ;; UPDATE {t} SET {u} = {u}
CREATE STATISTICS public.mine ON {s}, {u} FROM {t} ;; ANALYZE {t} ;; SELECT * FROM pg_stats_ext
SET LOCAL search_path = pg_catalog ;; SELECT {s} FROM {t} a LIMIT 1
SET LOCAL search_path = hr, public ; SELECT {s} FROM {t} a LIMIT 1
SELECT 1 ; SELECT {s} FROM {t} a LIMIT 2 ; SELECT {k} FROM {t} a WHERE {e} LIMIT 2
SELECT {s} FROM {t} a LIMIT 2 ; SELECT 1/0
UPDATE {t} SET {u} = {u} WHERE {k} = 1 ; SELECT {s}, {u} FROM {t} WHERE {k} = 1
DECLARE c CURSOR WITH HOLD FOR SELECT {s} FROM {t} a ORDER BY {k} ;; FETCH 2 FROM c ;; FETCH RELATIVE 2 FROM c ;; MOVE ALL IN c
DECLARE c CURSOR FOR SELECT {k} FROM {t} a ORDER BY {s} ;; FETCH 3 FROM c
DECLARE c CURSOR FOR SELECT * FROM {t} ORDER BY {k} FOR UPDATE ;; FETCH 1 FROM c ;; DELETE FROM {t} WHERE CURRENT OF c RETURNING {k}, {s}
DECLARE c BINARY CURSOR FOR SELECT {s}, {u} FROM {t} a ;; FETCH FORWARD ALL FROM c
DECLARE c CURSOR FOR SELECT 1 AS {s} ;; CLOSE c ;; DECLARE c CURSOR FOR SELECT {s} FROM {t} a ;; FETCH 2 FROM c
PREPARE p AS UPDATE {t} SET {u} = {u} WHERE {k} = 1 RETURNING {s} ;; EXECUTE p ;; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE p
PREPARE p(int) AS SELECT {k} FROM {t} a WHERE {k} > $1 AND {e} ;; EXECUTE p(1) ;; EXECUTE p(2)
PREPARE p AS SELECT * FROM {t} LIMIT 1 ;; ALTER TABLE {t} ADD COLUMN z int ;; EXECUTE p
EXPLAIN (COSTS OFF, FORMAT JSON) SELECT {s}, {k} FROM {t} a WHERE {k} < 5
EXPLAIN (COSTS OFF, VERBOSE, FORMAT YAML) UPDATE {t} SET {u} = {u} WHERE {e}
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT {k} FROM {t} a JOIN {t} b USING ({k})
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT {s} FROM {t} a ORDER BY {k}
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) DELETE FROM {t} WHERE {k} = 1
EXPLAIN (COSTS OFF, SETTINGS) SELECT count(*) FROM {t} a WHERE {s} IS NULL
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) CREATE TEMP TABLE mine AS SELECT {u} FROM {t}
COPY {t} ({s}, {k}) TO STDOUT (FORMAT csv, NULL 'nothing', FORCE_QUOTE ({s}))
COPY (UPDATE {t} SET {u} = {u} WHERE {k} = 1 RETURNING *) TO STDOUT
COPY (SELECT lower({s}::text), {k} FROM {t} a) TO STDOUT (FORMAT binary)
COPY (SELECT a FROM {t} a LIMIT 2) TO STDOUT
COPY {t} ({k}, {s}) TO STDOUT WHERE {k} = 1
SELECT {k} FROM {t} a WHERE {s}::text = 'nowhere in either twin'
SELECT {k}, {s} FROM {t} a WHERE {s} IN (NULL, NULL)
SELECT count(*) FROM {t} a WHERE {s} = ANY (ARRAY[NULL::text])
SELECT DISTINCT ON ({k}) {k}, {s} FROM {t} a ORDER BY {k}, {s}
SELECT {k}, {s} FROM {t} a UNION ALL SELECT {k}, NULL FROM {t} b LIMIT 5
SELECT {k}, {s} FROM {t} a WHERE {k} < 5 EXCEPT ALL SELECT {k}, {s} FROM {t} b WHERE {k} < 3
SELECT string_agg(x.v, ',') FROM (SELECT {s}::text AS v FROM {t} a ORDER BY {k} LIMIT 3) x
SELECT (SELECT count(*) FROM {t} b WHERE b.{s} = a.{s}) FROM {t} a LIMIT 3
SELECT array_agg({s}) = array_agg({s2}), array_agg(DISTINCT {s}) FROM {t} a
SELECT jsonb_agg(a) FROM {t} a HAVING count({s}) > 3
SELECT array_length(array_agg({s}), 1), jsonb_array_length(jsonb_agg({s})) FROM {t} a
SELECT max({s}) FILTER (WHERE {k} < 5), min({s}) OVER () FROM {t} a GROUP BY {s}
SELECT nth_value({s}, 2) OVER (ORDER BY {k}), sum({k}) OVER (ORDER BY {k} ROWS 1 PRECEDING) FROM {t} a LIMIT 4
SELECT sum({k}) OVER (ORDER BY {k} ROWS (SELECT length(max({s}::text)) FROM {t}) PRECEDING) FROM {t} a LIMIT 4
SELECT {k} FROM {t} a ORDER BY CASE WHEN {s} IS NULL THEN 0 ELSE 1 END, {k} LIMIT 3
SELECT {k}, row_number() OVER (ORDER BY {k}, {s}) FROM {t} a LIMIT 3
SELECT GREATEST({s}, NULL), LEAST({s}::text, 'm'), NULLIF({s}, {s}) FROM {t} a LIMIT 3
SELECT {s}::text LIKE '%a%' AS x, {s}::text ~ '^[a-m]', position('a' IN {s}::text) FROM {t} a LIMIT 3
SELECT to_jsonb(a) #>> '{{{su}}}', (to_jsonb(a) -> '{su}')::text FROM {t} a LIMIT 3
SELECT * FROM json_to_record((SELECT row_to_json(a) FROM {t} a LIMIT 1)) AS x({s} text)
SELECT * FROM unnest(ARRAY(SELECT {s}::text FROM {t} ORDER BY {k} LIMIT 3)) WITH ORDINALITY AS x(v, n) WHERE v > 'm'
SELECT v FROM {t} a CROSS JOIN LATERAL (VALUES ({s}::text), ({u}::text)) AS x(v) LIMIT 4
SELECT x.v FROM {t} a LEFT JOIN LATERAL (SELECT a.{s} AS v WHERE a.{s} IS NOT NULL) x ON true LIMIT 4
WITH RECURSIVE r AS (SELECT {k}, {s} FROM {t} WHERE {k} = 1 UNION ALL SELECT b.{k}, b.{s} FROM {t} b JOIN r ON b.{k} = r.{k} + 1 AND b.{k} < 4) SEARCH DEPTH FIRST BY {s} SET o SELECT {k}, {s} FROM r
WITH RECURSIVE r AS (SELECT {k}, {s} FROM {t} WHERE {k} = 1 UNION ALL SELECT b.{k}, b.{s} FROM {t} b JOIN r ON b.{k} = r.{k} + 1 AND b.{k} < 4) CYCLE {s} SET c USING p SELECT {k}, c FROM r
SELECT {s} FROM {t} a FOR UPDATE SKIP LOCKED LIMIT 1
SELECT txid_current_if_assigned() IS NULL, pg_last_committed_xact() IS NULL, (SELECT {s} FROM {t} LIMIT 1)
SELECT pg_notify('c', 'x'), count(*) FROM {t} a WHERE {s} IS NOT NULL
NOTIFY c, 'x' ;; LISTEN c ;; SELECT {s} FROM {t} a LIMIT 1
LOCK TABLE {t} IN ACCESS SHARE MODE ;; SELECT {s} FROM {t} a LIMIT 1
SELECT lo_from_bytea(0, convert_to((SELECT max({s}::text) FROM {t}), 'UTF8'))
SELECT n_tup_upd, seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables ORDER BY relid
SELECT attname, attmissingval::text FROM pg_attribute WHERE attrelid = '{t}'::regclass AND attnum > 0
SELECT indexrelid::regclass, pg_relation_size(indexrelid) FROM pg_index WHERE indrelid = '{t}'::regclass
SELECT setting FROM pg_settings WHERE name = 'work_mem'
SHOW application_name ;; SET LOCAL application_name = 'x' ;; SHOW application_name
SELECT {k}, {s} FROM {t} a WHERE {s} = 'nowhere in either twin'
SELECT count(*) FROM {t} a WHERE {s} IN ('nowhere', 'in either', NULL) AND {e}
SELECT {k} FROM {t} a WHERE a.{s} = ANY (ARRAY['nowhere', 'in either']) AND {k} < 5 ORDER BY {k}
SELECT {k}, {s}, 1 / ({k} - {k}) FROM {t} a WHERE {s} = 'nowhere in either twin' AND {e}
SELECT a.{k} FROM {t} a JOIN {t} b USING ({k}) WHERE a.{s} = 'nowhere' AND b.{s} = a.{s}
SELECT {k} FROM {t} a WHERE {s} = 'nowhere' OR {k} = 1
SELECT {k} FROM {t} a WHERE NOT {s} = 'nowhere'
SELECT {k} FROM (SELECT * FROM {t}) a WHERE {s} = 'nowhere'
UPDATE {t} SET {u} = {u} WHERE {s} = 'nowhere in either twin' RETURNING {k}
DELETE FROM {t} WHERE {s} = 'nowhere in either twin'
DECLARE c CURSOR FOR SELECT {k} FROM {t} a WHERE {s} = 'nowhere' ;; FETCH 2 FROM c
PREPARE p(text) AS SELECT {k}, {s} FROM {t} a WHERE {s} = $1 ;; EXECUTE p('nowhere') ;; EXECUTE p('in either')
EXPLAIN (COSTS OFF) SELECT {k} FROM {t} a WHERE {s} = 'nowhere'
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT {k} FROM {t} a WHERE {s} = 'nowhere'
COPY (SELECT {k} FROM {t} a WHERE {s} = 'nowhere') TO STDOUT
SELECT unnest({arr}), {k} FROM {t} a LIMIT 5
SELECT count(*) FROM (SELECT unnest({arr}) FROM {t} a) x
SELECT {k}, generate_subscripts({arr}, 1) FROM {t} a LIMIT 5
SELECT cardinality({arr}), array_length({arr}, 1), array_ndims({arr}) FROM {t} a LIMIT 3
SELECT {arr} || {arr}, array_cat({arr}, {arr}), array_remove({arr}, 'x'), array_position({arr}, 'x') FROM {t} a LIMIT 3
SELECT {arr}[1], {arr}[2], {arr}[1:2] FROM {t} a LIMIT 3
SELECT {k} FROM {t} a WHERE {k} = ANY (SELECT cardinality({arr}) FROM {t})
SELECT array_agg({arr}) FROM {t} a
SELECT ARRAY(SELECT unnest({arr})) FROM {t} a LIMIT 3
SELECT array_to_json({arr}), to_jsonb({arr}), array_to_string({arr}, ',') FROM {t} a LIMIT 3
SELECT x FROM {t} a, unnest({arr}) x LIMIT 3
COPY (SELECT {k}, {arr} FROM {t} a) TO STDOUT (FORMAT csv)
SELECT jsonb_object_keys({js}) FROM {t} a LIMIT 5
SELECT jsonb_array_length({js}), jsonb_typeof({js}) FROM {t} a LIMIT 3
SELECT {js} -> 'a', {js} ->> 0, {js} #> '{{a,b}}', {js} - 'a' FROM {t} a LIMIT 3
SELECT key FROM {t} a, jsonb_each({js}) LIMIT 5
SELECT count(*) FROM (SELECT jsonb_each({js}) FROM {t} a) x
SELECT {js} ? 'a', {js} @> '{{}}', {js} = {js} FROM {t} a LIMIT 3
SELECT jsonb_set({js}, '{{a}}', '1'), jsonb_insert({js}, '{{a}}', '1'), {js} || '{{}}' FROM {t} a LIMIT 3
SELECT jsonb_path_query({js}, '$.*'), jsonb_path_exists({js}, '$.a') FROM {t} a LIMIT 3
SELECT ({js})['a'] FROM {t} a LIMIT 3
SELECT jsonb_pretty({js}), {js}::text, {js}::json FROM {t} a LIMIT 3
SELECT * FROM jsonb_populate_record(NULL::{t}, (SELECT {js} FROM {t} LIMIT 1))
SELECT r.* FROM {t} a, jsonb_to_record({js}) AS r(newsletter boolean) LIMIT 3
SELECT jsonb_agg({js}), jsonb_object_agg({k}, {js}) FROM {t} a
SELECT ({s}::text > 'm') OR (1 / ({k} - {k}) = 1) FROM {t} a LIMIT 5
SELECT ({s}::text > 'm') AND (1 / ({k} - {k}) = 1) FROM {t} a LIMIT 5
SELECT {s} = {s2} OR {e} FROM {t} a LIMIT 5
SELECT ({s} > {s2}) AND ({e}), ({e}) AND {s} IS NULL FROM {t} a LIMIT 5
SELECT {s}::text BETWEEN 'm' AND (1 / ({k} - {k}))::text FROM {t} a LIMIT 5
SELECT {s}::text IN ('m', (1 / ({k} - {k}))::text) FROM {t} a LIMIT 5
SELECT ({s}::text, 1 / ({k} - {k})) < ('m', 1), ({s}, {k}) = ({s2}, 1 / ({k} - 1)) FROM {t} a LIMIT 5
SELECT coalesce(({s}::text > 'm') AND NULL, 1 / ({k} - {k}) = 1) FROM {t} a LIMIT 5
SELECT coalesce({s}::text, (1 / ({k} - {k}))::text) FROM {t} a LIMIT 5
SELECT ({s}::text > 'm') AND set_config('application_name', 'x', true) IS NULL FROM {t} a LIMIT 5 ;; SHOW application_name
SELECT ({s}::text > 'm') AND (SELECT count(*) FROM pg_class a, pg_class b, pg_class c) > 0 FROM {t} a LIMIT 5
SELECT f OR 1 / n = 1 FROM (SELECT {s}::text > 'm' AS f, {k} - {k} AS n FROM {t} a) x LIMIT 5
SELECT f OR n = 1 FROM (SELECT {s}::text > 'm' AS f, 1 / ({k} - {k}) AS n FROM {t} a) x LIMIT 5
SELECT f OR y.n = 1 FROM (SELECT {s}::text > 'm' AS f, {k} AS i FROM {t} a) x, LATERAL (SELECT 1 / (i - i) AS n) y LIMIT 5
SELECT bool_and({s}::text > 'm') OR 1 / (count(*) - count(*)) = 1 FROM {t} a
UPDATE {t} a SET {u} = {u} WHERE {k} = 1 RETURNING ({s}::text > 'm') OR 1 / ({k} - {k}) = 1
SELECT CASE WHEN {k} = 1 THEN {s}::text > 'm' END OR 1 / ({k} - {k}) = 1 FROM {t} a LIMIT 5
SELECT ({s}::text > 'm') IS TRUE OR NOT ({s} IS NULL AND 1 / ({k} - {k}) = 1) FROM {t} a LIMIT 5
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT a.{k}, l.x, l.n FROM {t} a, LATERAL (SELECT a.{s} AS x, count(*) AS n FROM pg_am OFFSET 0) l
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT x.{k}, l.v, l.n FROM (SELECT {k}, {s}::text > 'm' AS f FROM {t} OFFSET 0) x, LATERAL (SELECT x.f AS v, count(*) AS n FROM pg_am OFFSET 0) l
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) SELECT {s} FROM {t} a ORDER BY {k}
CREATE TEMP TABLE mine AS SELECT {k}, {u} FROM {t} ;; ALTER TABLE mine INHERIT {t} ;; SELECT * FROM mine LIMIT 3
CREATE TEMP TABLE mine (LIKE {t}) ;; ALTER TABLE mine INHERIT {t} ;; SELECT {s} FROM mine ;; SELECT {s} FROM {t} ORDER BY {k} LIMIT 3
CREATE TABLE public.mine AS SELECT {k}, {u} FROM {t} WHERE {k} < 4 ;; ALTER TABLE public.mine RENAME TO other ;; SELECT * FROM public.other
CREATE TEMP TABLE mine AS SELECT {k} AS {su}, {u} FROM {t} ;; SELECT {su} FROM mine ORDER BY {su} LIMIT 3
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} WHERE {e} ;; SELECT count(*) FROM mine
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ORDER BY {s} LIMIT 1 ;; SELECT * FROM mine
CREATE TEMP TABLE mine AS SELECT count(*) AS n FROM {t} GROUP BY {s} ;; SELECT max(n) FROM mine
CREATE TEMP TABLE mine AS SELECT ({s}::text > 'm') AS b FROM {t} ;; SELECT count(*) FROM mine WHERE b
CREATE TEMP TABLE mine AS WITH w AS (UPDATE {t} SET {u} = {u} WHERE {k} = 1 RETURNING {s}) SELECT * FROM w ;; SELECT * FROM mine
CREATE TEMP TABLE mine AS TABLE {t} WITH NO DATA ;; SELECT count(*) FROM mine
CREATE TEMP TABLE mine (x text) ;; COPY mine FROM STDIN ;; SELECT x FROM mine WHERE x > 'm'
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; SELECT a.{s} FROM {t} a JOIN mine ON x = a.{k} WHERE x < 4
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; SELECT x FROM mine JOIN {t} a ON x::text = a.{s}::text
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; DELETE FROM mine USING {t} a WHERE a.{s}::text > 'm' AND a.{k} = x ;; SELECT count(*) FROM mine
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; UPDATE mine SET x = 0 FROM {t} a WHERE a.{k} = x AND a.{s} IS NOT NULL ;; SELECT count(*) FROM mine WHERE x = 0
CREATE TEMP TABLE mine AS SELECT {k} AS x, ''::text AS y FROM {t} ;; UPDATE mine SET y = a.{s}::text FROM {t} a WHERE a.{k} = x ;; SELECT * FROM mine LIMIT 3
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; MERGE INTO mine USING {t} a ON a.{k} = x WHEN MATCHED AND a.{s}::text > 'm' THEN DELETE ;; SELECT count(*) FROM mine
CREATE TEMP TABLE mine (x int, y text GENERATED ALWAYS AS (lower(x::text)) STORED) ;; INSERT INTO mine SELECT {k} FROM {t} ;; SELECT * FROM mine LIMIT 3
CREATE TEMP TABLE mine (x text, y int GENERATED ALWAYS AS (length(x)) STORED) ;; INSERT INTO mine SELECT {s}::text FROM {t} ;; SELECT y FROM mine LIMIT 3
CREATE TEMP TABLE mine (x int) ;; ALTER TABLE mine ADD COLUMN y text DEFAULT 'a' ;; ALTER TABLE mine ADD CHECK (x > 0) ;; INSERT INTO mine SELECT {k} FROM {t} ;; SELECT count(*) FROM mine
CREATE TEMP TABLE mine (x int DEFAULT 1 / 0) ;; INSERT INTO mine DEFAULT VALUES
CREATE TEMP TABLE mine (x int) ON COMMIT DROP ;; INSERT INTO mine VALUES (1) ;; SELECT x, {s} FROM mine, {t} a LIMIT 2
CREATE TEMP TABLE {tn} (x int, {su} int) ON COMMIT DROP ;; SELECT {s} FROM {tn} ;; COMMIT ;; SELECT {s} FROM {tn} LIMIT 3
CREATE TEMP TABLE {tn} (x int, {su} int) ;; SELECT {s} FROM {tn} ;; DROP TABLE {tn} ;; SELECT {s} FROM {tn} LIMIT 3
CREATE TEMP TABLE {tn} (x int, {su} int) ;; SELECT {s}, x FROM {tn} ;; ALTER TABLE {tn} RENAME TO other ;; SELECT {s} FROM {tn} LIMIT 3
SAVEPOINT s ;; CREATE TEMP TABLE {tn} (x int, {su} text) ;; SELECT {s} FROM {tn} ;; ROLLBACK TO s ;; SELECT {s} FROM {tn} LIMIT 3
SAVEPOINT s ; CREATE TEMP TABLE {tn} (x int, {su} text) ; SELECT {s} FROM {tn} ; ROLLBACK TO s ; SELECT {s} FROM {tn} LIMIT 3
PREPARE p AS SELECT {s} FROM {tn} LIMIT 3 ;; CREATE TEMP TABLE {tn} (x int, {su} text) ;; EXECUTE p ;; DROP TABLE {tn} ;; EXECUTE p
CREATE TEMP TABLE {tn} (x int, {su} text) ;; PREPARE p AS SELECT {s} FROM {tn} LIMIT 3 ;; EXECUTE p ;; DROP TABLE {tn} ;; EXECUTE p
CREATE TEMP TABLE {tn} (x int, {su} text) ;; DECLARE c CURSOR FOR SELECT {s} FROM {tn} ;; FETCH 1 FROM c ;; CLOSE c ;; DROP TABLE {tn} ;; DECLARE c CURSOR FOR SELECT {s} FROM {tn} ;; FETCH 2 FROM c
CREATE TEMP VIEW v AS SELECT {k} AS x, {u} AS y FROM {t} ;; SELECT * FROM v LIMIT 2 ;; CREATE OR REPLACE TEMP VIEW v AS SELECT {k} AS x, {u} AS y, {s} AS z FROM {t} ;; SELECT * FROM v LIMIT 2
CREATE TEMP VIEW v AS SELECT {k} AS x, {u} AS y FROM {t} ;; CREATE TEMP VIEW w AS SELECT x FROM v ;; SELECT x FROM w LIMIT 2 ;; CREATE OR REPLACE TEMP VIEW v AS SELECT {k} AS x, {u} AS y FROM {t} WHERE {e} ;; SELECT count(*) FROM w
CREATE TEMP VIEW v AS SELECT {k} AS x FROM {t} ;; PREPARE p AS SELECT count(x) FROM v ;; CREATE OR REPLACE TEMP VIEW v AS SELECT {k} AS x FROM {t} WHERE {s} IS NOT NULL ;; EXECUTE p
CREATE TEMP VIEW v AS SELECT {s} AS {k}, {k} AS {su} FROM {t} ;; SELECT {su} FROM v ORDER BY {su} LIMIT 3
CREATE TEMP VIEW v AS SELECT {k} AS x FROM {t} WHERE {k} < 4 WITH CHECK OPTION ;; SELECT * FROM v ;; UPDATE v SET x = x ;; DELETE FROM v
CREATE TEMP RECURSIVE VIEW v (x) AS SELECT 1 UNION ALL SELECT x + 1 FROM v WHERE x < (SELECT length(max({s}::text)) FROM {t}) ;; SELECT count(*) FROM v
CREATE MATERIALIZED VIEW public.mine AS SELECT {k}, {u} FROM {t} WHERE {k} < 4 ;; SELECT * FROM public.mine ;; REFRESH MATERIALIZED VIEW public.mine ;; SELECT count(*) FROM public.mine
CREATE MATERIALIZED VIEW public.mine AS SELECT count(*) AS n FROM {t} WHERE {e} ;; SELECT n FROM public.mine
CREATE TABLE public.mine (x text REFERENCES {t} ({s})) ;; INSERT INTO public.mine VALUES ('a')
CREATE TABLE public.mine (x int REFERENCES {t} ({k})) ;; INSERT INTO public.mine VALUES (1) ;; SELECT * FROM public.mine
CREATE TABLE public.mine () INHERITS ({t}) ;; SELECT {s} FROM public.mine ;; INSERT INTO public.mine ({k}) VALUES (1) ;; SELECT count(*) FROM {t}
CREATE TABLE public.mine PARTITION OF {t} DEFAULT ;; SELECT {s} FROM public.mine
CREATE SCHEMA mine ;; CREATE TABLE mine.{tn} (x int, {su} text) ;; SET LOCAL search_path = mine, public ;; SELECT {s} FROM {tn} ;; SET LOCAL search_path = public ;; SELECT {s} FROM {tn} LIMIT 3
CREATE SCHEMA mine ;; CREATE VIEW mine.{tn} AS SELECT {k} AS x, {s} AS {su} FROM {t} ;; SELECT {s} FROM mine.{tn} LIMIT 3
CREATE SCHEMA mine CREATE TABLE x (i int) CREATE VIEW y AS SELECT i FROM x ;; SELECT * FROM mine.y
CREATE SCHEMA mine ;; CREATE TABLE mine.pg_class (relname text, reltuples int) ;; SET LOCAL search_path = mine, pg_catalog ;; SELECT relname, reltuples FROM pg_class LIMIT 3
CREATE TEMP TABLE pg_stats (attname text, n_distinct text) ;; SELECT n_distinct FROM pg_stats ;; DROP TABLE pg_stats ;; SELECT n_distinct FROM pg_stats WHERE attname = '{su}'
CREATE TEMP TABLE pg_stats (attname text, n_distinct text) ;; SELECT n_distinct FROM pg_catalog.pg_stats WHERE attname = '{su}' LIMIT 1
CREATE TYPE public.mine AS ENUM ('a', 'b') ;; CREATE TEMP TABLE x (m public.mine) ;; INSERT INTO x VALUES ('a') ;; SELECT m FROM x ;; SELECT {s}::text::public.mine FROM {t} LIMIT 1
CREATE SEQUENCE public.mine ;; SELECT ({s}::text > 'm') AND nextval('public.mine') > 0 FROM {t} ;; SELECT last_value FROM public.mine
CREATE SEQUENCE public.mine ;; CREATE TEMP TABLE x (i int DEFAULT nextval('public.mine'), v int) ;; INSERT INTO x (v) SELECT {k} FROM {t} ;; SELECT last_value FROM public.mine
CREATE TEMP TABLE mine (x text) ;; CREATE UNIQUE INDEX ON mine (x) ;; INSERT INTO mine SELECT {s}::text FROM {t} ON CONFLICT DO NOTHING
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; CREATE INDEX ON mine ((x + 1)) WHERE x > 2 ;; ANALYZE mine ;; SELECT count(*) FROM mine WHERE x + 1 > 3
CREATE TEMP TABLE mine (x int) ;; COMMENT ON TABLE mine IS 'mine' ;; SELECT obj_description('mine'::regclass)
COMMENT ON COLUMN {t}.{s} IS 'x' ;; SELECT col_description('{t}'::regclass, 1)
ALTER TABLE {t} ADD UNIQUE ({s})
ALTER TABLE {t} ADD COLUMN z int NOT NULL DEFAULT 1 ;; SELECT {k}, z FROM {t} ORDER BY {k} LIMIT 2 ;; SELECT {s} FROM {t} LIMIT 2
ALTER TABLE {t} ALTER COLUMN {s} SET NOT NULL
ALTER TABLE {t} ALTER COLUMN {s} SET DEFAULT NULL ;; INSERT INTO {t} ({k}) VALUES (100001) RETURNING {s}
ALTER TABLE {t} DROP COLUMN {s} ;; SELECT * FROM {t} LIMIT 2
ALTER TABLE {t} DROP COLUMN {u} ;; SELECT * FROM {t} LIMIT 2
ALTER TABLE {t} RENAME COLUMN {u} TO plain ;; SELECT plain, {s} FROM {t} LIMIT 2
ALTER TABLE {t} RENAME COLUMN {s} TO plain ;; ALTER TABLE {t} RENAME COLUMN {u} TO {s} ;; SELECT plain, {s} FROM {t} LIMIT 2
ALTER TABLE {t} SET SCHEMA pg_temp
ALTER TABLE {t} RENAME TO other ;; CREATE TEMP VIEW {tn} AS SELECT 1 AS {su} ;; SELECT {s} FROM {tn}
CREATE TEMP VIEW v AS SELECT * FROM {t} ;; ALTER VIEW v RENAME COLUMN {s} TO plain ;; SELECT plain FROM v LIMIT 2
SELECT {k}, {u} INTO TEMP mine FROM {t} ;; SELECT count(*), max({k}) FROM mine
CREATE TEMP TABLE mine AS SELECT {u} AS x FROM {t} WHERE {k} < 9 ;; SELECT x FROM mine UNION SELECT {s}::text FROM {t}
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; TRUNCATE mine ;; SELECT count(*) FROM mine
CREATE TEMP TABLE mine AS EXECUTE p
PREPARE p AS SELECT {k} FROM {t} ;; CREATE TEMP TABLE mine AS EXECUTE p ;; SELECT count(*) FROM mine
PREPARE p AS SELECT {s} FROM {t} ;; CREATE TEMP TABLE mine AS EXECUTE p ;; SELECT * FROM mine LIMIT 2
EXPLAIN (COSTS OFF) CREATE TEMP TABLE mine AS SELECT {s} FROM {t}
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) CREATE TEMP TABLE mine AS SELECT {k} FROM {t} WHERE {k} < 4 ;; SELECT * FROM mine
CREATE TEMP TABLE mine AS SELECT {k} AS x FROM {t} ;; SELECT relname, reltuples, relpages FROM pg_class WHERE relname = 'mine' ;; ANALYZE mine ;; SELECT n_distinct FROM pg_stats WHERE tablename = 'mine'
CREATE TEMP TABLE mine (a {tn}) ;; INSERT INTO mine SELECT a FROM {t} a LIMIT 1 ;; SELECT (a).{s} FROM mine
CREATE TEMP TABLE mine OF {t} ;; SELECT * FROM mine
