//! How connections are protected.

use super::*;

#[test]
fn ssl_modes_are_those_of_the_vendors_clients() {
    in_time("ssl_modes_are_those_of_the_vendors_clients", async {
        let (server, mut c) = any_server(Flavor::Mysql9).await;
        let name = database(&mut c, "encrypted", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let with = |mode: &str| {
            let mut from = config(&server, &name);
            from["url"] = json!(format!("{}?ssl-mode={mode}", server.url(&name)));
            MysqlBackend::default().source("db", from).must("a source")
        };
        let cx = Context::default();
        for mode in ["DISABLED", "PREFERRED", "REQUIRED"] {
            with(mode).connect(&cx).await.must(mode);
        }
        for mode in ["VERIFY_CA", "VERIFY_IDENTITY"] {
            let error =
                with(mode).connect(&cx).await.err().must("the server's own certificate is trusted by nobody");
            assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
        }
    });
}

#[test]
fn with_its_authority_a_server_is_verified_and_a_client_shows_its_own_certificate() {
    in_time("with_its_authority_a_server_is_verified_and_a_client_shows_its_own_certificate", async {
        let (server, mut c) = any_server(Flavor::Mysql9).await;
        let name = database(&mut c, "verified", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let user = fresh("certified");
        run(
            &mut c,
            &format!(
                "CREATE USER {user}@'%' IDENTIFIED BY 'p' REQUIRE X509;; GRANT ALL ON *.* TO {user}@'%'"
            ),
        )
        .await;
        let folder = tempfile::tempdir().must("a folder");
        let file = async |name: &str| {
            let text = server.container().exec(&["cat", &format!("/var/lib/mysql/{name}")]).await;
            let path = folder.path().join(name);
            std::fs::write(&path, text).must("write");
            path.display().to_string()
        };
        let (ca, certificate, key) =
            (file("ca.pem").await, file("client-cert.pem").await, file("client-key.pem").await);
        let with = |who: &str, password: &std::path::Path, options: &str| {
            let url = server.url(&name).replace("root@", &format!("{who}@"));
            let from = json!({ "url": format!("{url}?{options}"), "password_file": password });
            MysqlBackend::default().source("db", from).must("a source")
        };
        let cx = Context::default();
        let (root, own) = (common::password_file(&server), secret_file(&user, "p"));
        with("root", &root, &format!("ssl-mode=VERIFY_CA&ssl-ca={ca}"))
            .connect(&cx)
            .await
            .must("the authority is known");
        let wrong_name = format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}");
        let error =
            with("root", &root, &wrong_name).connect(&cx).await.err().must("it is not called 127.0.0.1");
        assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
        let shown = format!("ssl-mode=REQUIRED&ssl-cert={certificate}&ssl-key={key}");
        with(&user, &own, &shown).connect(&cx).await.must("the client shows a certificate");
        let error = with(&user, &own, "ssl-mode=REQUIRED").connect(&cx).await.err().must("it shows none");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    });
}

/// Certificates that vouch for themselves, which is what an authority does: of the server, and of another one.
const OWN: &str = "for who in own other; do
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout $who.key -out $who.crt
done; chmod 644 *.key";

#[test]
fn a_servers_own_certificate_is_trusted_if_it_is_named_though_it_is_marked_as_an_authoritys() {
    in_time(
        "a_servers_own_certificate_is_trusted_if_it_is_named_though_it_is_marked_as_an_authoritys",
        async {
            for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
                use std::os::unix::fs::PermissionsExt;
                let folder = tempfile::tempdir().must("a folder");
                std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).must("its mode");
                let made =
                    std::process::Command::new("sh").args(["-ec", OWN]).current_dir(folder.path()).output();
                let made = made.must("openssl");
                assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                let own = ["--ssl-cert=/shared/own.crt", "--ssl-key=/shared/own.key"];
                let server = services::mysql_with_folder(flavor, folder.path(), &own).await;
                let mut c = conn(&server).await;
                let name = database(
                &mut c,
                "named",
                "CREATE TABLE t (id int PRIMARY KEY, t longtext);; INSERT INTO t VALUES (1, REPEAT('x', 3000000)), (2, 'y');; \
                 CREATE USER sealed@'%' IDENTIFIED BY 'p w' REQUIRE SSL;; GRANT ALL ON *.* TO sealed@'%'",
            )
            .await;
                let with = |host: &str, mode: &str, ca: &str, password: &str| {
                    let url = server.url(&name).replace("root@127.0.0.1", &format!("sealed@{host}"));
                    let ca = folder.path().join(ca).display().to_string();
                    json!({
                        "url": format!("{url}?ssl-mode={mode}&ssl-ca={ca}"),
                        "password_file": secret_file(&format!("sealed-{password}"), password),
                    })
                };
                let cx = Context::default();
                for (host, mode) in [("localhost", "VERIFY_IDENTITY"), ("127.0.0.1", "VERIFY_CA")] {
                    // Twice: from the second time on the server has the password in mind.
                    for _ in 0..2 {
                        captured(&with(host, mode, "own.crt", "p w"), &cx).await.must(mode);
                    }
                }
                for (host, mode, ca) in
                    [("127.0.0.1", "VERIFY_IDENTITY", "own.crt"), ("localhost", "VERIFY_CA", "other.crt")]
                {
                    let error = source(&with(host, mode, ca, "p w")).connect(&cx).await.err().must(mode);
                    assert!(error.to_string().to_lowercase().contains("certificate"), "{error}");
                }
                let error = source(&with("localhost", "VERIFY_CA", "own.crt", "wrong")).connect(&cx).await;
                assert_eq!(error.err().must("denied").kind(), ErrorKind::Denied);
                // A session that is given up ends, although somebody stands between.
                drop(
                    source(&with("localhost", "VERIFY_CA", "own.crt", "p w"))
                        .connect(&cx)
                        .await
                        .must("connect"),
                );
                let sessions = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'sealed'";
                while value(&mut c, sessions).await != "0" {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        },
    );
}

#[test]
fn a_database_goes_over_a_unix_socket_and_back() {
    in_time("a_database_goes_over_a_unix_socket_and_back", async {
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            use std::os::unix::fs::PermissionsExt;
            let folder = tempfile::tempdir().must("a folder");
            // The server runs as another user.
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).must("its mode");
            let server =
                services::mysql_with_folder(flavor, folder.path(), &["--socket=/shared/mysql.sock"]).await;
            let mut c = conn(&server).await;
            let name = database(
                &mut c,
                "by_socket",
                "CREATE TABLE t (id int PRIMARY KEY, t text);; INSERT INTO t VALUES (1, 'one')",
            )
            .await;
            run(&mut c, "CREATE USER local_only@localhost IDENTIFIED BY 'p';; GRANT ALL ON *.* TO local_only@localhost WITH GRANT OPTION").await;
            let socket = folder.path().join("mysql.sock").display().to_string();
            let at = |url: String| json!({ "url": url, "password_file": secret_file(&format!("socket-{name}"), "p") });
            // Both ways to name it. The user may come from no other host, so by nothing else.
            let from = at(format!("mysql://local_only@/{name}?socket={socket}"));
            let to = at(format!("mysql://local_only@{}/again", socket.replace('/', "%2F")));
            let cx = Context::default();
            restore(&from, &to, &cx).await.must("restore").settle(&cx).await.must("settle");
            assert_eq!(fingerprint(&mut c, &name).await, fingerprint(&mut c, "again").await);
        }
    });
}
