//! The modes of libpq, against a server that has TLS and one that has not.

use crate::common::{Database, backend};
use backup_core::{Backend, Context, ErrorKind};
use backup_testkit::run;
use std::{path::Path, process::Command};

/// A certificate of `localhost` by an authority of its own, and another authority that did not make it.
const CERTIFICATES: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.crt
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=other -keyout other.key -out other.crt
openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost -keyout server.key -out server.csr
printf 'subjectAltName=DNS:localhost' > names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out server.crt";

/// A certificate that vouches for itself, which is what an authority does.
const OWN: &str = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout own.key -out own.crt";

async fn give_tls(database: &Database, folder: &Path, script: &str, certificate: &str) {
    let out = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    switch_ssl(database, "off").await;
    let data = database.admin("SHOW data_directory").await;
    for kind in ["crt", "key"] {
        let text = std::fs::read_to_string(folder.join(format!("{certificate}.{kind}"))).unwrap();
        let file = format!("{data}/server.{kind}");
        let put = format!("umask 077; printf '%s' '{text}' > {file}; chown postgres: {file}");
        database.server.container().exec(&["sh", "-c", &put]).await;
    }
    switch_ssl(database, "on").await;
}

async fn switch_ssl(database: &Database, to: &str) {
    database.admin(&format!("ALTER SYSTEM SET ssl = {to}")).await;
    database.admin("SELECT pg_reload_conf()").await;
    while database.admin("SHOW ssl").await != to {}
}

/// Connects as the address says, and looks whether the session is encrypted; `None`: it is refused.
async fn connects(database: &Database, host: &str, said: &str, encrypted: Option<bool>) {
    let url = database.server.url(&database.name).replace("127.0.0.1", host);
    let mut config = database.config();
    config.url = Some(format!("{url}?{said}"));
    let source = backend().source("c", config.to_value()).unwrap();
    let ready = source.connect(&Context::default()).await;
    let Some(encrypted) = encrypted else {
        let e = ready.err().unwrap_or_else(|| panic!("{host} {said}: it was not refused"));
        assert_eq!(e.kind(), ErrorKind::Source, "{host} {said}: {e}");
        return;
    };
    let ready = ready.unwrap_or_else(|e| panic!("{host} {said}: {e}"));
    let sessions = "SELECT bool_and(ssl), bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name LIKE 'backup %' AND datname = current_database()";
    let expected = if encrypted { "t|t" } else { "f|f" };
    assert_eq!(database.sql(sessions).await, expected, "{host} {said}");
    drop(ready);
    assert_eq!(database.taken(), Vec::<String>::new());
}

#[test]
fn tls_is_what_the_mode_of_the_address_says() {
    run("tls_is_what_the_mode_of_the_address_says", async {
        let database = Database::with(15, "").await;
        let plain = Database::with(17, "").await;
        let folder = tempfile::tempdir().unwrap();
        give_tls(&database, folder.path(), CERTIFICATES, "server").await;
        let (authority, other) = (folder.path().join("ca.crt"), folder.path().join("other.crt"));
        let with = |authority: &Path| format!("&sslrootcert={}", authority.display());
        for (host, said, encrypted) in [
            ("127.0.0.1", "sslmode=disable".to_owned(), Some(false)),
            ("127.0.0.1", "sslmode=prefer".to_owned(), Some(true)),
            ("127.0.0.1", "sslmode=require".to_owned(), Some(true)),
            ("127.0.0.1", format!("sslmode=require{}", with(&other)), None),
            ("127.0.0.1", format!("sslmode=verify-ca{}", with(&authority)), Some(true)),
            ("127.0.0.1", format!("sslmode=verify-ca{}", with(&other)), None),
            ("127.0.0.1", "sslmode=verify-ca".to_owned(), None),
            ("127.0.0.1", format!("sslmode=verify-full{}", with(&authority)), None),
            ("localhost", format!("sslmode=verify-full{}", with(&authority)), Some(true)),
            ("localhost", format!("sslmode=verify-full{}", with(&other)), None),
        ] {
            connects(&database, host, &said, encrypted).await;
        }
        // Its own certificate is trusted if it is named, though it is marked as an authority's.
        give_tls(&database, folder.path(), OWN, "own").await;
        let own = folder.path().join("own.crt");
        for (host, mode, root, encrypted) in [
            ("localhost", "verify-full", &own, Some(true)),
            ("127.0.0.1", "verify-full", &own, None),
            ("127.0.0.1", "verify-ca", &own, Some(true)),
            ("127.0.0.1", "require", &own, Some(true)),
            ("localhost", "verify-full", &other, None),
            ("localhost", "require", &authority, None),
        ] {
            connects(&database, host, &format!("sslmode={mode}{}", with(root)), encrypted).await;
        }
        for (mode, taken) in [("prefer", true), ("require", false), ("verify-full", false)] {
            let mut config = plain.config();
            config.url = Some(format!("{}?sslmode={mode}", plain.server.url(&plain.name)));
            let ready = backend().source("c", config.to_value()).unwrap().connect(&Context::default()).await;
            match ready {
                Ok(_) => assert!(taken, "{mode}: the session is not encrypted"),
                Err(e) => assert!(!taken && e.to_string().contains("TLS"), "{mode}: {e}"),
            }
        }
    });
}
