//! Real servers in throwaway containers, for the tests of stores.
//!
//! A server is started when a test asks for it, shared by the tests of one program that run at the same time, and removed when
//! the last of them is done. What a killed program left is swept by the next one. Where no container engine answers, a test
//! is skipped and says so, unless `BACKUP_TEST_REQUIRE` names `docker` or the store.

mod container;
mod image;
mod mysql;
mod postgres;

pub use container::{Container, Wanted, sweep};
pub use image::image;
pub use mysql::{Flavor, Mysql, mysql, mysql_with_folder, mysql_with_room, own_mysql};
pub use postgres::{Postgres, own_postgres, postgres, postgres_with_room};
