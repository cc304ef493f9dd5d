//! The test servers' containers as an engine: this crate does not know Docker, its tests ask the program of that name.

use async_trait::async_trait;
use backup_core::{
    CommandRunner, ContainerEngine, ContainerFacts, Content, Error, ErrorKind, HostRunner, Result, Secret,
    ToolCommand,
};
use std::{fmt, sync::Arc};

pub struct DockerProgram;

fn docker(arguments: &[&str]) -> Result<String> {
    let out = std::process::Command::new("docker").args(arguments).output().unwrap();
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
        false => Err(Error::new(ErrorKind::NotFound, "ask docker", String::from_utf8_lossy(&out.stderr))),
    }
}

#[async_trait]
impl ContainerEngine for DockerProgram {
    async fn inspect(&self, name: &str) -> Result<ContainerFacts> {
        let json: serde_json::Value =
            serde_json::from_str(&docker(&["inspect", "--type", "container", name])?).unwrap();
        let found = &json[0];
        let environment = found["Config"]["Env"].as_array().unwrap().iter().map(|pair| {
            let (name, value) = pair.as_str().unwrap().split_once('=').unwrap();
            (name.to_owned(), Secret::new(value))
        });
        let port = found["NetworkSettings"]["Ports"]["5432/tcp"][0]["HostPort"].as_str();
        let published = port.map(|port| (5432, format!("127.0.0.1:{port}").parse().unwrap()));
        Ok(ContainerFacts {
            id: found["Id"].as_str().unwrap().to_owned(),
            name: found["Name"].as_str().unwrap().trim_start_matches('/').to_owned(),
            running: found["State"]["Running"].as_bool().unwrap(),
            environment: environment.collect(),
            published: published.into_iter().collect(),
            ..ContainerFacts::default()
        })
    }

    async fn publishing(&self, port: u16) -> Result<Option<ContainerFacts>> {
        for id in docker(&["ps", "-q", "--no-trunc", "--filter", &format!("publish={port}")])?.lines() {
            let Ok(facts) = self.inspect(id).await else { continue };
            if facts.published.values().any(|there| there.port() == port) {
                return Ok(Some(facts));
            }
        }
        Ok(None)
    }

    fn runner(&self, id: &str) -> Arc<dyn CommandRunner> {
        Arc::new(Exec(id.to_owned()))
    }
}

struct Exec(String);

impl fmt::Display for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a container")
    }
}

impl CommandRunner for Exec {
    fn run(&self, command: ToolCommand) -> Content {
        let mut arguments = vec!["exec".to_owned(), "-i".to_owned()];
        for (name, _) in &command.environment {
            // The value comes from the environment of the program.
            arguments.extend(["-e".to_owned(), name.clone()]);
        }
        arguments.extend([self.0.clone(), command.program.clone()]);
        arguments.extend(command.arguments.iter().cloned());
        HostRunner.run(ToolCommand { program: "docker".into(), arguments, ..command })
    }
}
