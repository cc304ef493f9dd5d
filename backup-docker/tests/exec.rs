//! Facts and tools of a real container.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use backup_core::{ContainerEngine, Content, Error, ErrorKind, Secret, ToolCommand, output_of};
use backup_docker::Docker;
use backup_testkit::{run, services};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn sh(script: &str) -> ToolCommand {
    ToolCommand::new("sh").args(["-c", script])
}

#[test]
fn the_facts_are_those_of_the_container() {
    run("the_facts_are_those_of_the_container", async {
        let server = services::postgres(17).await;
        let docker = Docker::default();
        let facts = docker.inspect(server.container().id()).await.unwrap();
        assert!(facts.running && facts.id == server.container().id());
        assert_eq!(facts.published[&5432].port(), server.port());
        assert!(facts.addresses.contains(&server.container().address()));
        assert_eq!(facts.environment["POSTGRES_PASSWORD"].expose(), server.password());
        assert!(facts.mounts.iter().any(|m| m.destination == "/var/lib/postgresql/data" && m.writable));
        assert!(!format!("{facts:?}").contains(server.password()), "a password is shown");
        assert_eq!(docker.publishing(server.port()).await.unwrap().unwrap().id, facts.id);
        assert!(docker.publishing(1).await.unwrap().is_none());
        assert_eq!(docker.inspect("no-such-container").await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn the_output_of_a_tool_ends_only_with_status_zero() {
    run("the_output_of_a_tool_ends_only_with_status_zero", async {
        let server = services::postgres(17).await;
        let docker = Docker::default();
        let runner = docker.runner(server.container().id());
        let call = |command| output_of(&*runner, command, 4 << 20, LIMIT);
        assert_eq!(call(sh("echo data; echo noise >&2")).await.unwrap(), b"data\n");
        let e = call(sh("echo data; echo broken >&2; exit 3")).await.unwrap_err();
        assert!(e.to_string().contains("broken") && e.to_string().contains('3'), "{e}");
        let e = call(sh("echo data; kill -9 $$")).await.unwrap_err();
        assert!(e.to_string().contains("137"), "{e}");
        let e = call(ToolCommand::new("no-such-program")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
        let marked = ToolCommand { end_marker: Some("-- done".into()), ..sh("seq 1000") };
        assert!(call(marked).await.unwrap_err().to_string().contains("-- done"));
        let big = call(sh("seq 400000 | head -c 2000000")).await.unwrap();
        assert_eq!(big.len(), 2_000_000);
    });
}

#[test]
fn input_and_environment_reach_the_tool_and_a_failed_input_fails_it() {
    run("input_and_environment_reach_the_tool_and_a_failed_input_fails_it", async {
        let server = services::postgres(17).await;
        let docker = Docker::default();
        let runner = docker.runner(server.container().id());
        let input = Content::whole(vec![b'x'; 3_000_000]);
        let call = sh("wc -c; printf %s \"$WORD\"").reading(input).env("WORD", Secret::new("a 'b' $c"));
        assert_eq!(output_of(&*runner, call, 1000, LIMIT).await.unwrap(), b"3000000\na 'b' $c");
        let cut = sh("cat >/dev/null").reading(Content::failed(Error::cut()));
        assert_eq!(output_of(&*runner, cut, 1000, LIMIT).await.unwrap_err().kind(), ErrorKind::Cut);
    });
}

#[test]
fn a_dropped_call_is_ended_inside_the_container() {
    run("a_dropped_call_is_ended_inside_the_container", async {
        let server = services::postgres(17).await;
        let docker = Docker::default();
        let runner = docker.runner(server.container().id());
        let mut content = runner.run(sh("seq 100000; exec sleep 4321"));
        content.next().await.unwrap().unwrap();
        // The brackets keep the words of the call that counts from being counted.
        let alive = || async {
            let count = sh("grep -lz '[4]321' /proc/[0-9]*/cmdline 2>/dev/null | wc -l");
            let said = output_of(&*runner, count, 1000, LIMIT).await.unwrap();
            String::from_utf8(said).unwrap().trim().parse::<u32>().unwrap()
        };
        let before = alive().await;
        assert!(before > 0, "it runs while it is read");
        drop(content);
        let mut after = before;
        for _ in 0..100 {
            after = alive().await;
            if after == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(after, 0, "{before} processes before the drop");
    });
}
