//! The throwaway servers themselves.

use backup_testkit::{run, services};
use std::process::Command;

#[test]
fn servers_start_answer_and_are_shared_and_removed() {
    run("servers_start_answer_and_are_shared_and_removed", async {
        for version in [15, 17] {
            let server = services::postgres(version).await;
            let again = services::postgres(version).await;
            assert_eq!(server.container().id(), again.container().id(), "two tests share a server");
            let said =
                server.container().exec(&["psql", "-U", "postgres", "-Atc", "show server_version_num"]).await;
            assert!(said.starts_with(&version.to_string()), "{said}");
            assert!(!server.container().address().is_loopback());
            let id = server.container().id().to_owned();
            drop((server, again));
            assert!(!is_there(&id), "a server that nobody uses is still there");
        }
    });
}

#[test]
fn servers_of_mysql_and_mariadb_start_and_answer() {
    run("servers_of_mysql_and_mariadb_start_and_answer", async {
        for flavor in services::Flavor::ALL {
            let server = services::own_mysql(flavor, &[]).await;
            let password = format!("-p{}", server.password());
            let said = server
                .container()
                .exec(&[server.client(), "-uroot", &password, "-Ne", "select @@version"])
                .await;
            assert_eq!(said.contains("MariaDB"), flavor.is_mariadb(), "{said}");
        }
    });
}

#[test]
fn the_servers_of_a_killed_process_are_swept() {
    run("the_servers_of_a_killed_process_are_swept", async {
        let server = services::own_postgres(15).await;
        let image = services::image("postgres", "15").await;
        let image = format!("{}:{}", image.0, image.1);
        // No process has this number.
        let abandoned = docker(&[
            "run",
            "-d",
            "--label",
            "backup-test.pid=99999999",
            "-e",
            "POSTGRES_PASSWORD=x",
            &image,
        ]);
        services::sweep().await;
        assert!(!is_there(abandoned.trim()), "what a killed process left is still there");
        assert!(is_there(server.container().id()), "a server in use was swept");
    });
}

fn is_there(id: &str) -> bool {
    let listed = docker(&["ps", "-aq", "--no-trunc"]);
    listed.lines().any(|line| line == id)
}

fn docker(arguments: &[&str]) -> String {
    let out = Command::new("docker").args(arguments).output().expect("docker");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
