//! PostgreSQL 17, against `pg_dump` and `pg_restore`.

use super::rows::{Table, Value};
use super::server::Server;
use super::{Result, Rival, Store};
use std::io::{self, Write};
use std::path::Path;

/// As a careful administrator sets it, whose server must survive a crash.
const SETTINGS: [&str; 4] =
    ["shared_buffers=512MB", "max_wal_size=4GB", "checkpoint_timeout=30min", "max_connections=50"];

const TABLES: &str = "
CREATE TABLE users (id int, email text NOT NULL, name text NOT NULL, profile jsonb NOT NULL, tags text[] NOT NULL,
  created timestamptz NOT NULL, active bool NOT NULL, name_length int GENERATED ALWAYS AS (char_length(name)) STORED);
CREATE TABLE events (id bigint, user_id int NOT NULL, at timestamptz NOT NULL, kind text NOT NULL, amount numeric(12, 2),
  address inet NOT NULL, path text NOT NULL, session text NOT NULL);
CREATE TABLE documents (id int, user_id int NOT NULL, title text NOT NULL, body text NOT NULL, changed timestamptz NOT NULL);
CREATE TABLE attachments (id int, document_id int NOT NULL, name text NOT NULL, data bytea NOT NULL);
";

const KEYS: &str = "
ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE events ADD PRIMARY KEY (id);
ALTER TABLE documents ADD PRIMARY KEY (id);
ALTER TABLE attachments ADD PRIMARY KEY (id);
CREATE UNIQUE INDEX ON users (email);
CREATE INDEX ON users USING gin (profile);
CREATE INDEX ON users USING gin (tags);
CREATE INDEX ON events (user_id, at);
CREATE INDEX ON events (at);
CREATE INDEX ON events (kind, at);
CREATE INDEX ON documents USING gin (to_tsvector('simple', body));
ALTER TABLE events ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE documents ADD FOREIGN KEY (user_id) REFERENCES users;
ALTER TABLE attachments ADD FOREIGN KEY (document_id) REFERENCES documents;
";

// A named pipe, for docker would carry every byte through two further processes.
const PLAIN: &str = r#"mkfifo "$2.pipe"; zstd -3 -T2 -q -f -o "$2" < "$2.pipe" & trap 'kill $! 2>/dev/null || true; rm -f "$2.pipe"' EXIT
docker exec "$1" pg_dump -U postgres -Fp -f "$2.pipe" race; wait $!"#;

const DUMPS: [Rival; 3] = [
    Rival { name: "pg_dump -Fp | zstd -3 -T2", file: "plain.sql.zst", script: PLAIN },
    Rival {
        name: "pg_dump -Fd -j2 --compress=zstd:3",
        file: "folder",
        script: r#"docker exec "$1" pg_dump -U postgres -Fd -j2 --compress=zstd:3 -f "$2" race"#,
    },
    Rival {
        name: "pg_dump -Fc",
        file: "custom.dump",
        script: r#"docker exec "$1" pg_dump -U postgres -Fc -f "$2" race"#,
    },
];

const RESTORES: [Rival; 2] = [
    Rival { name: "pg_restore -j2, of -Fd", file: "folder", script: RESTORE },
    Rival { name: "pg_restore -j2, of -Fc", file: "custom.dump", script: RESTORE },
];
const RESTORE: &str = r#"docker exec "$1" createdb -U postgres -T template0 race
docker exec "$1" pg_restore -U postgres -j2 -d race "$2""#;

pub(super) struct Postgres {
    server: Server,
    version: String,
}

impl Postgres {
    pub(super) fn start(work: &Path) -> Result<Self> {
        let arguments: Vec<&str> =
            ["postgres"].into_iter().chain(SETTINGS.iter().flat_map(|s| ["-c", s])).collect();
        // Nobody but this machine's programs reaches it.
        let environment = ["POSTGRES_HOST_AUTH_METHOD=trust", "POSTGRES_USER=postgres"];
        let server = Server::start("postgres:17", work, &environment, &arguments)?;
        // Only the real server listens on TCP, not the one that an image starts to set itself up.
        server.wait_until(&["psql", "-h", "127.0.0.1", "-U", "postgres", "-c", "SELECT 1"])?;
        let mut started = Postgres { server, version: String::new() };
        started.version = started.sql("postgres", "SHOW server_version")?;
        Ok(started)
    }

    fn psql<'a>(database: &'a str, sql: &'a str) -> [&'a str; 10] {
        ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]
    }

    fn sql(&self, database: &str, sql: &str) -> Result<String> {
        self.server.exec(&Self::psql(database, sql))
    }
}

impl Store for Postgres {
    fn title(&self) -> String {
        format!("PostgreSQL {}", self.version.split(' ').next().unwrap_or_default())
    }

    fn server(&self) -> &Server {
        &self.server
    }

    fn source(&self, database: &str) -> String {
        format!("kind = \"postgres\"\ncontainer = \"{}\"\ndatabase = \"{database}\"", self.server.name())
    }

    fn fill(&self, database: &str, megabytes: u64) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"))?;
        self.sql(database, TABLES)?;
        for table in Table::ALL {
            let copy = format!("COPY {} ({}) FROM STDIN", table.name(), table.columns().join(", "));
            self.server.feed(&Self::psql(database, &copy), |out| {
                let mut line = Vec::new();
                table.write(megabytes, &mut |row| {
                    line.clear();
                    write_row(row, &mut line)?;
                    out.write_all(&line)
                })
            })?;
        }
        self.sql(database, &format!("SET maintenance_work_mem = '512MB'; {KEYS} ANALYZE")).map(drop)
    }

    fn drop_database(&self, database: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)")).map(drop)
    }

    fn come_to_rest(&self) -> Result<()> {
        self.sql("postgres", "CHECKPOINT").map(drop)
    }

    fn fingerprint(&self, database: &str) -> Result<String> {
        let each = Table::ALL.map(|table| {
            let name = table.name();
            format!("SELECT '{name}', count(*), sum(hashtextextended({name}::text, 0)::numeric) FROM {name}")
        });
        let rows = self.sql(database, &each.join(" UNION ALL "))?;
        let keys =
            self.sql(database, "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")?;
        Ok(format!("{rows}\n{keys}"))
    }

    fn dumps(&self) -> &'static [Rival] {
        &DUMPS
    }

    fn restores(&self) -> &'static [Rival] {
        &RESTORES
    }

    fn limits(&self) -> [(f64, f64); 2] {
        [(0.70, 0.60), (0.90, 0.85)]
    }
}

/// As COPY takes it.
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
            Value::Yes(yes) => out.push(if *yes { b't' } else { b'f' }),
            Value::Time(seconds) => {
                let time = jiff::Timestamp::from_second(*seconds).map_err(io::Error::other)?;
                write!(out, "{time}")?;
            }
            Value::Bytes(bytes) => {
                out.extend_from_slice(b"\\\\x");
                super::hex(bytes, out);
            }
            // Words need no quotes in it.
            Value::List(words) => write!(out, "{{{}}}", words.join(","))?,
        }
    }
    out.push(b'\n');
    Ok(())
}
