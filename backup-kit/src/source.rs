//! What of a store is read, as it is configured; and the builders for files, PostgreSQL, MySQL and MariaDB.

use serde_json::Value;

/// A source before it is made: the kind of its store and that store's configuration.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    pub(crate) kind: String,
    pub(crate) config: Value,
    pub(crate) disposable: bool,
}

impl SourceSpec {
    /// For any store of the registry, also one from outside.
    pub fn new(kind: impl Into<String>, config: Value) -> Self {
        SourceSpec { kind: kind.into(), config, disposable: false }
    }

    /// A restore to where it came from may replace what is there without a confirmed plan.
    #[must_use]
    pub fn disposable(mut self, yes: bool) -> Self {
        self.disposable = yes;
        self
    }
}

/// Files as a source.
pub mod files {
    use super::SourceSpec;
    use backup_files::FilesConfig;
    use std::path::PathBuf;

    /// A folder with everything below it.
    pub fn folder(path: impl Into<PathBuf>) -> Files {
        Files(FilesConfig::new(path))
    }

    /// A single file.
    pub fn file(path: impl Into<PathBuf>) -> Files {
        Files(FilesConfig::new(path))
    }

    /// A folder or a file, and what of it is left out.
    #[derive(Clone, Debug)]
    #[must_use]
    pub struct Files(FilesConfig);

    impl Files {
        /// Leaves out what matches, as a line of a `.gitignore`. May be called again.
        pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
            self.0.exclude.push(pattern.into());
            self
        }

        /// The same, from the lines of a file. May be called again.
        pub fn exclude_file(mut self, file: impl Into<PathBuf>) -> Self {
            self.0.exclude_files.push(file.into());
            self
        }

        /// Of folders that say that they are caches (`CACHEDIR.TAG`) keeps only the folder and its tag.
        pub fn exclude_caches(mut self) -> Self {
            self.0.exclude_caches = true;
            self
        }

        /// Does not descend into other file systems.
        pub fn one_file_system(mut self) -> Self {
            self.0.one_file_system = true;
            self
        }

        /// May be missing: then nothing is stored, and a note says so.
        pub fn optional(mut self) -> Self {
            self.0.optional = true;
            self
        }
    }

    impl From<FilesConfig> for Files {
        fn from(config: FilesConfig) -> Self {
            Files(config)
        }
    }

    impl From<Files> for SourceSpec {
        fn from(files: Files) -> Self {
            SourceSpec::new("files", files.0.to_value())
        }
    }
}

/// PostgreSQL databases as sources.
pub mod postgres {
    use super::SourceSpec;
    use backup_postgres::PostgresConfig;
    use std::path::PathBuf;

    /// The database of this address: `postgres://user@host:port/database?sslmode=verify-full`. An address with a password is
    /// refused when the module is used.
    pub fn url(url: impl Into<String>) -> Postgres {
        Postgres(PostgresConfig::url(url))
    }

    /// The server in this container; user, password and database are taken from its environment.
    pub fn container(name: impl Into<String>) -> Postgres {
        Postgres(PostgresConfig::container(name))
    }

    /// Databases of a server, and what of them is left out.
    #[derive(Clone, Debug)]
    #[must_use]
    pub struct Postgres(PostgresConfig);

    impl Postgres {
        /// This database of the server.
        pub fn database(mut self, name: impl Into<String>) -> Self {
            self.0.database = Some(name.into());
            self
        }

        /// These databases of the server in one backup, each in a folder of its name; `["*"]`: all but templates.
        pub fn databases<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
            self.0.databases = names.into_iter().map(Into::into).collect();
            self
        }

        /// As this user.
        pub fn user(mut self, name: impl Into<String>) -> Self {
            self.0.user = Some(name.into());
            self
        }

        /// The first line of this file is the password.
        pub fn password_file(mut self, file: impl Into<PathBuf>) -> Self {
            self.0.password_file = Some(file.into());
            self
        }

        /// Leaves out these tables altogether (`schema.table`, with `*` for any characters), with what needs them; of one of several databases
        /// `database/schema.table`. May be called again.
        pub fn exclude_tables(mut self, pattern: impl Into<String>) -> Self {
            self.0.exclude_tables.push(pattern.into());
            self
        }

        /// Reads roles and tablespaces of the server, too, or not: if this is not said, with all databases (`["*"]`) only.
        pub fn globals(mut self, yes: bool) -> Self {
            self.0.globals = Some(yes);
            self
        }

        /// Leaves out the rows of these tables, named likewise. May be called again.
        pub fn exclude_table_data(mut self, pattern: impl Into<String>) -> Self {
            self.0.exclude_table_data.push(pattern.into());
            self
        }
    }

    impl From<PostgresConfig> for Postgres {
        fn from(config: PostgresConfig) -> Self {
            Postgres(config)
        }
    }

    impl From<Postgres> for SourceSpec {
        fn from(postgres: Postgres) -> Self {
            SourceSpec::new("postgres", postgres.0.to_value())
        }
    }
}

/// Databases of MySQL and MariaDB as sources.
pub mod mysql {
    use super::SourceSpec;
    use backup_mysql::MysqlConfig;
    use std::path::PathBuf;

    /// The database of this address: `mysql://user@host:port/database?ssl-mode=VERIFY_IDENTITY`. An address with a password is
    /// refused when the module is used.
    pub fn url(url: impl Into<String>) -> Mysql {
        Mysql(MysqlConfig::url(url))
    }

    /// The server in this container; user, password and database are taken from its environment.
    pub fn container(name: impl Into<String>) -> Mysql {
        Mysql(MysqlConfig::container(name))
    }

    /// Databases of a server, and what of them is left out.
    #[derive(Clone, Debug)]
    #[must_use]
    pub struct Mysql(MysqlConfig);

    impl Mysql {
        /// These databases of the server; `["*"]`: all but its own.
        pub fn databases<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
            self.0.databases = names.into_iter().map(Into::into).collect();
            self
        }

        /// As this user.
        pub fn user(mut self, name: impl Into<String>) -> Self {
            self.0.user = Some(name.into());
            self
        }

        /// The first line of this file is the password.
        pub fn password_file(mut self, file: impl Into<PathBuf>) -> Self {
            self.0.password_file = Some(file.into());
            self
        }

        /// Reads users, roles and their grants, too, or not: if this is not said, with all databases (`["*"]`) only.
        pub fn globals(mut self, yes: bool) -> Self {
            self.0.globals = Some(yes);
            self
        }

        /// Leaves out the rows of a table (`table` or `database.table`). May be called again.
        pub fn exclude_data(mut self, table: impl Into<String>) -> Self {
            self.0.exclude_data.push(table.into());
            self
        }

        /// Leaves out a table altogether (`table` or `database.table`). May be called again.
        pub fn exclude_table(mut self, table: impl Into<String>) -> Self {
            self.0.exclude_tables.push(table.into());
            self
        }
    }

    impl From<MysqlConfig> for Mysql {
        fn from(config: MysqlConfig) -> Self {
            Mysql(config)
        }
    }

    impl From<Mysql> for SourceSpec {
        fn from(mysql: Mysql) -> Self {
            SourceSpec::new("mysql", mysql.0.to_value())
        }
    }
}
