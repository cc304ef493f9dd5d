//! MariaDB 11.8, against `mariadb-dump`, and mydumper and myloader of this host.

use super::rows::{Table, Value};
use super::server::Server;
use super::{Result, Rival, Store};
use crate::failure::Failure;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// As a careful administrator sets it, whose server must survive a crash.
const SETTINGS: [&str; 3] =
    ["--innodb-buffer-pool-size=512M", "--innodb-log-file-size=1G", "--max-connections=50"];
const REST_LIMIT: Duration = Duration::from_secs(300);

const TABLES: &str = "
CREATE TABLE users (id int PRIMARY KEY, email varchar(150) NOT NULL, name varchar(100) NOT NULL, profile json NOT NULL,
  tags json NOT NULL, created datetime NOT NULL, active bool NOT NULL, name_length int AS (char_length(name)) STORED);
CREATE TABLE events (id bigint PRIMARY KEY, user_id int NOT NULL, at datetime NOT NULL, kind varchar(20) NOT NULL,
  amount decimal(12, 2), address varchar(45) NOT NULL, path varchar(200) NOT NULL, session char(16) NOT NULL);
CREATE TABLE documents (id int PRIMARY KEY, user_id int NOT NULL, title varchar(200) NOT NULL, body mediumtext NOT NULL,
  changed datetime NOT NULL);
CREATE TABLE attachments (id int PRIMARY KEY, document_id int NOT NULL, name varchar(100) NOT NULL, data longblob NOT NULL);
";

const KEYS: &str = "
ALTER TABLE users ADD UNIQUE KEY (email), ADD KEY (created);
ALTER TABLE events ADD KEY (user_id, at), ADD KEY (at), ADD KEY (kind, at);
ALTER TABLE documents ADD KEY (user_id), ADD KEY (title);
ALTER TABLE attachments ADD KEY (document_id);
ALTER TABLE events ADD FOREIGN KEY (user_id) REFERENCES users (id);
ALTER TABLE documents ADD FOREIGN KEY (user_id) REFERENCES users (id);
ALTER TABLE attachments ADD FOREIGN KEY (document_id) REFERENCES documents (id);
ANALYZE TABLE users, events, documents, attachments;
";

// A named pipe, for docker would carry every byte through two further processes.
const PLAIN: &str = r#"mkfifo "$2.pipe"; zstd -3 -T2 -q -f -o "$2" < "$2.pipe" & trap 'kill $! 2>/dev/null || true; rm -f "$2.pipe"' EXIT
docker exec "$1" sh -c 'mariadb-dump -uroot --single-transaction --routines --events --triggers --hex-blob race > "$0"' "$2.pipe"; wait $!"#;

/// Before 0.12 it knows gzip only.
const MYDUMPER: &str = r#"ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1")
case $(mydumper --version) in 'mydumper 0.'*) how=--compress ;; *) how='--compress=ZSTD --hex-blob' ;; esac
mydumper -h "$ip" -u root -B race -t 2 $how -o "$2""#;

const DUMPS: [Rival; 2] = [
    Rival { name: "mariadb-dump | zstd -3 -T2", file: "plain.sql.zst", script: PLAIN },
    Rival { name: "mydumper -t2", file: "folder", script: MYDUMPER },
];

const RESTORES: [Rival; 2] = [
    Rival {
        name: "zstd -d | mariadb",
        file: "plain.sql.zst",
        script: r#"mkfifo "$2.pipe"; zstd -dcq "$2" > "$2.pipe" & trap 'kill $! 2>/dev/null || true; rm -f "$2.pipe"' EXIT
docker exec "$1" mariadb -uroot -e 'CREATE DATABASE race'
docker exec "$1" sh -c 'mariadb -uroot race < "$0"' "$2.pipe"; wait $!"#,
    },
    Rival {
        name: "myloader -t2",
        file: "folder",
        script: r#"ip=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1")
myloader -h "$ip" -u root -t 2 -d "$2""#,
    },
];

pub(super) struct Mariadb {
    server: Server,
    version: String,
}

impl Mariadb {
    pub(super) fn start(work: &Path) -> Result<Self> {
        // Nobody but this machine's programs reaches it.
        let environment = ["MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1"];
        let server = Server::start("mariadb:11.8", work, &environment, &SETTINGS)?;
        // Only the real server listens on TCP, not the one that an image starts to set itself up.
        server.wait_until(&["mariadb", "-h127.0.0.1", "--protocol=tcp", "-uroot", "-e", "SELECT 1"])?;
        let mut started = Mariadb { server, version: String::new() };
        started.version = started.sql("mysql", "SELECT VERSION()")?;
        Ok(started)
    }

    fn client<'a>(database: &'a str, sql: &'a str) -> [&'a str; 8] {
        ["mariadb", "-uroot", "-N", "--raw", "--local-infile=1", database, "-e", sql]
    }

    fn sql(&self, database: &str, sql: &str) -> Result<String> {
        self.server.exec(&Self::client(database, sql))
    }
}

impl Store for Mariadb {
    fn title(&self) -> String {
        format!("MariaDB {}", self.version.split('-').next().unwrap_or_default())
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn source(&self, database: &str) -> String {
        format!("kind = \"mysql\"\ncontainer = \"{}\"\ndatabases = [\"{database}\"]", self.server.name())
    }

    fn fill(&self, database: &str, megabytes: u64) -> Result<()> {
        self.sql("mysql", &format!("CREATE DATABASE {database} CHARACTER SET utf8mb4"))?;
        self.sql(database, TABLES)?;
        for table in Table::ALL {
            let (names, set) = match table {
                Table::Attachments => ("id, document_id, name, @data", " SET data = UNHEX(@data)"),
                _ => (&*table.columns().join(", "), ""),
            };
            let load = format!(
                "SET foreign_key_checks = 0, unique_checks = 0; \
                 LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE {} CHARACTER SET utf8mb4 ({names}){set}",
                table.name()
            );
            self.server.feed(&Self::client(database, &load), |out| {
                let mut line = Vec::new();
                table.write(megabytes, &mut |row| {
                    line.clear();
                    write_row(row, &mut line)?;
                    out.write_all(&line)
                })
            })?;
        }
        self.sql(database, KEYS).map(drop)
    }

    fn drop_database(&self, database: &str) -> Result<()> {
        self.sql("mysql", &format!("DROP DATABASE IF EXISTS {database}")).map(drop)
    }

    fn come_to_rest(&self) -> Result<()> {
        self.sql("mysql", "SET GLOBAL innodb_max_dirty_pages_pct = 0")?;
        let start = Instant::now();
        let dirty = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'INNODB_BUFFER_POOL_PAGES_DIRTY'";
        while self.sql("mysql", dirty)?.parse().unwrap_or(0) > 100 {
            if start.elapsed() > REST_LIMIT {
                return Err(Failure::Failed("the server does not come to rest".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.sql("mysql", "SET GLOBAL innodb_max_dirty_pages_pct = DEFAULT").map(drop)
    }

    fn fingerprint(&self, database: &str) -> Result<String> {
        let mut text = String::new();
        for table in Table::ALL {
            let sql = format!("CHECKSUM TABLE {0}; SHOW CREATE TABLE {0}", table.name());
            text.push_str(&self.sql(database, &sql)?);
        }
        Ok(text)
    }

    fn dumps(&self) -> &'static [Rival] {
        &DUMPS
    }

    fn restores(&self) -> &'static [Rival] {
        &RESTORES
    }

    fn limits(&self) -> [(f64, f64); 2] {
        [(0.75, 0.65), (0.90, 0.80)]
    }
}

/// As LOAD DATA takes it.
fn write_row(row: &[Value<'_>], out: &mut Vec<u8>) -> io::Result<()> {
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            out.push(b'\t');
        }
        match value {
            Value::Null => out.extend_from_slice(b"\\N"),
            Value::Number(n) => write!(out, "{n}")?,
            Value::Decimal(n) => write!(out, "{}.{:02}", n / 100, n % 100)?,
            Value::Text(text) | Value::Json(text) => super::escaped(text, out),
            Value::Yes(yes) => out.push(if *yes { b'1' } else { b'0' }),
            Value::Time(seconds) => {
                let time = jiff::Timestamp::from_second(*seconds).map_err(io::Error::other)?;
                write!(out, "{}", time.strftime("%Y-%m-%d %H:%M:%S"))?;
            }
            Value::Bytes(bytes) => super::hex(bytes, out),
            // Words need no escapes in it.
            Value::List(words) => {
                let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                write!(out, "[{}]", quoted.join(","))?;
            }
        }
    }
    out.push(b'\n');
    Ok(())
}
