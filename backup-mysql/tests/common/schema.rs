//! A schema with an object of every sort that is easily lost or changed.

use super::run;
use backup_testkit::services::Flavor;
use mysql_async::Conn;

/// Makes it in a database of this name.
pub async fn every_sort(c: &mut Conn, database: &str, flavor: Flavor) {
    run(
        c,
        &format!(
            "CREATE DATABASE `{database}` CHARACTER SET latin1 COLLATE latin1_german1_ci;; USE `{database}`"
        ),
    )
    .await;
    run(c, TABLES).await;
    run(c, ROWS).await;
    run(c, DEFINITIONS).await;
    run(c, if flavor.is_mariadb() { MARIADB } else { MYSQL }).await;
}

const TABLES: &str = r#"
CREATE TABLE customers (
  id int unsigned NOT NULL AUTO_INCREMENT,
  name varchar(80) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL COMMENT 'it''s, a (KEY `x` 😀',
  old_name varchar(40) CHARACTER SET latin1,
  code char(10) CHARACTER SET ucs2 DEFAULT NULL,
  twice int GENERATED ALWAYS AS (CHAR_LENGTH(name) * 2) VIRTUAL,
  thrice int GENERATED ALWAYS AS (CHAR_LENGTH(name) * 3) STORED,
  made timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
  PRIMARY KEY (id), UNIQUE KEY u (name), KEY k (old_name, id), KEY g (thrice)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COMMENT='all; of \\ them'
;;
CREATE TABLE orders (
  id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
  customer int unsigned,
  parent bigint,
  amount decimal(12,3) DEFAULT 0.500,
  state enum('new','it''s','paid','a,b') DEFAULT 'new',
  flags set('a','b','c d') NOT NULL DEFAULT '',
  bits bit(11), day date, at datetime(6), span time(3), y year,
  short float, wide double, big decimal(65,30),
  KEY c (customer), KEY p (parent),
  CONSTRAINT of_customer FOREIGN KEY (customer) REFERENCES customers (id) ON DELETE CASCADE,
  CONSTRAINT of_parent FOREIGN KEY (parent) REFERENCES orders (id),
  CONSTRAINT positive CHECK (amount >= 0)
) ENGINE=InnoDB AUTO_INCREMENT=900
;;
CREATE TABLE blobs (
  id varbinary(16) NOT NULL, fixed binary(4), small tinyblob, large longblob, words longtext, doc json,
  PRIMARY KEY (id), FULLTEXT KEY w (words), FULLTEXT KEY w2 (words)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
;;
CREATE TABLE places (id int NOT NULL PRIMARY KEY, p point NOT NULL, shape geometry, SPATIAL KEY s (p)) ENGINE=InnoDB
;;
CREATE TABLE `odd ``name``/of.a,table` (`a b` int, `c``d` text, `größe` int, KEY (`a b`)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4
;;
CREATE TABLE no_primary (a int NOT NULL, b varchar(5), UNIQUE KEY (a)) ENGINE=InnoDB
;;
CREATE TABLE numbered_second (a int NOT NULL, n int NOT NULL AUTO_INCREMENT, PRIMARY KEY (a, n), KEY (n)) ENGINE=InnoDB
;;
CREATE TABLE parts (id int NOT NULL, y int NOT NULL, PRIMARY KEY (id, y), KEY (y)) ENGINE=InnoDB
  PARTITION BY RANGE (y) (PARTITION p0 VALUES LESS THAN (2000), PARTITION p1 VALUES LESS THAN MAXVALUE)
;;
CREATE TABLE empty_one (id int PRIMARY KEY, t text, KEY (t(5))) ENGINE=InnoDB ROW_FORMAT=DYNAMIC
;;
CREATE TABLE one_text (t varchar(20)) ENGINE=InnoDB
"#;

const ROWS: &str = r#"
INSERT INTO customers (id, name, old_name, code, made) VALUES
  (1, 'Zoë 😀\t\\N\n', CONVERT(x'e4f6fc80' USING latin1), 'ucs', '2020-01-02 03:04:05'), (2, '', NULL, NULL, '1970-01-01 00:00:01'),
  (7, 'NULL', '', 'ä', '2038-01-19 03:14:07')
;; SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'
;; INSERT INTO customers (id, name) VALUES (0, 'zero')
;; SET sql_mode = ''
;;
INSERT INTO orders (id, customer, parent, amount, state, flags, bits, day, at, span, y, short, wide, big) VALUES
  (1, 1, NULL, 12.345, 'it''s', 'a,c d', b'10101010101', '0000-00-00', '0000-00-00 00:00:00', '-838:59:59', 0, 16777217, 0.1, 0.000000000000000000000000000001),
  (2, 2, 1, 0, 'a,b', '', b'0', '2024-02-29', '9999-12-31 23:59:59.999999', '00:00:00.001', 2155, 1e-38, -1.7976931348623157e308, -1),
  (3, NULL, 2, NULL, 'no such label', 'b', NULL, NULL, NULL, NULL, NULL, 0.1, 5e-324, NULL),
  (4, 1, 4, 1, NULL, '', b'1', '2024-00-00', '2024-01-00 01:02:03', '12:00:00', 1901, -0e0, 1e15, 1)
;;
INSERT INTO blobs VALUES
  (x'00ff5c0a09', x'00000001', '', REPEAT(x'00010203fffe5c0a', 9000), 'word\r\n\0 another', '{"a": [1, 2.5, null, "\\n\\t😀"], "b": {}}'),
  ('', x'61000000', NULL, NULL, NULL, NULL), ('b', NULL, x'0d', '', '\\', 'true')
;; INSERT INTO places VALUES (1, POINT(1.5, -2), ST_GeomFromText('POLYGON((0 0,0 3,3 3,0 0))', 4326)), (2, POINT(0, 0), NULL)
;; INSERT INTO `odd ``name``/of.a,table` VALUES (1, 'x', 2), (NULL, NULL, NULL)
;; INSERT INTO no_primary VALUES (3, 'c'), (1, 'a')
;; INSERT INTO numbered_second VALUES (1, 5), (1, 6), (2, 1)
;; INSERT INTO parts VALUES (1, 1990), (2, 2020)
;; INSERT INTO one_text VALUES (''), (NULL), ('\\N'), ('\n')
"#;

const DEFINITIONS: &str = r#"
CREATE FUNCTION plus_one(a int) RETURNS int DETERMINISTIC RETURN a + 1
;; CREATE VIEW second AS SELECT id, name FROM customers WHERE id > 0
;; CREATE VIEW first AS SELECT s.name, plus_one(s.id) AS next, 'ä 😀' AS t FROM second s
;; CREATE DEFINER = 'nobody'@'nowhere' SQL SECURITY DEFINER VIEW of_nobody AS SELECT 1 AS x
;; CREATE PROCEDURE many(IN a varchar(10), OUT n int) BEGIN SELECT COUNT(*) INTO n FROM customers WHERE name LIKE a; SET @x = ';'; END
;; CREATE TRIGGER t_second BEFORE INSERT ON customers FOR EACH ROW SET NEW.old_name = CONCAT(NEW.old_name, 'b')
;; CREATE TRIGGER t_first BEFORE INSERT ON customers FOR EACH ROW PRECEDES t_second SET NEW.old_name = CONCAT(NEW.old_name, 'a')
;; CREATE TRIGGER after_delete AFTER DELETE ON orders FOR EACH ROW BEGIN SET @deleted = OLD.id; END
;; CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'it''s' DO DELETE FROM empty_one
;; CREATE EVENT later ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' DO BEGIN SET @y = 1; END
"#;

const MARIADB: &str = r#"
CREATE SEQUENCE numbers START WITH 100 INCREMENT BY 5 CACHE 10
;; DO NEXTVAL(numbers)
;; CREATE TABLE numbered (id int NOT NULL DEFAULT NEXTVAL(numbers), t varchar(20) DEFAULT 'nextval(`x`.`y`)', hidden int INVISIBLE DEFAULT 3, u uuid, i inet6, PRIMARY KEY (id)) ENGINE=InnoDB
;; INSERT INTO numbered (t, hidden, u, i) VALUES ('a', 9, '123e4567-e89b-12d3-a456-426655440000', '::1'), ('b', NULL, NULL, NULL)
;; CREATE TABLE with_history (id int PRIMARY KEY, v varchar(20)) ENGINE=InnoDB WITH SYSTEM VERSIONING
;; INSERT INTO with_history VALUES (1, 'one'), (2, 'two')
;; UPDATE with_history SET v = 'uno' WHERE id = 1
;; DELETE FROM with_history WHERE id = 2
;; CREATE TABLE period (id int, b date, e date, PERIOD FOR p (b, e)) ENGINE=InnoDB
;; INSERT INTO period VALUES (1, '2020-01-01', '2021-01-01')
"#;

const MYSQL: &str = r#"
SET sql_generate_invisible_primary_key = ON
;; CREATE TABLE generated_key (a int, h int INVISIBLE DEFAULT 5, b varchar(10) DEFAULT (UPPER('x')), KEY (a), KEY e ((a + 1)), KEY hid (b) INVISIBLE) ENGINE=InnoDB
;; SET sql_generate_invisible_primary_key = OFF
;; INSERT INTO generated_key (a, h) VALUES (1, 7), (2, NULL)
;; CREATE TABLE arrays (id int PRIMARY KEY, d json, KEY m ((CAST(d->'$[*]' AS UNSIGNED ARRAY)))) ENGINE=InnoDB
;; INSERT INTO arrays VALUES (1, '[1, 2]'), (2, NULL)
;; CREATE TABLE vectors (id int PRIMARY KEY, v vector(3)) ENGINE=InnoDB
;; INSERT INTO vectors VALUES (1, STRING_TO_VECTOR('[1,2.5,-3]'))
"#;
