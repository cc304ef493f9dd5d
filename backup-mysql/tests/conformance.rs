//! The promises of sources, targets and backends, kept by databases on real servers.

mod common;

use backup_testkit::services::Flavor;
use common::fixtures::Databases;

mod source {
    backup_testkit::source_conformance!(super::Databases(super::Flavor::Mariadb118));
}

mod source_on_mysql {
    backup_testkit::source_conformance!(super::Databases(super::Flavor::Mysql9));
}

mod target {
    backup_testkit::target_conformance!(super::Databases(super::Flavor::Mariadb1011));
}

mod backend {
    backup_testkit::backend_conformance!(super::Databases(super::Flavor::Mariadb118));
}
