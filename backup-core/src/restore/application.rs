//! The containers that use what is restored. They are stopped before data is exchanged and started after it; which ones are to be
//! started again is in the journal before the first is stopped.

use crate::{ContainerEngine, Error, ErrorKind, Result};

/// Those of them that run; one that is not there is `NotFound`.
pub(super) async fn running(engine: &dyn ContainerEngine, names: &[String]) -> Result<Vec<String>> {
    let mut running = Vec::new();
    for name in names {
        if engine.inspect(name).await.map_err(|e| e.on(name))?.running {
            running.push(name.clone());
        }
    }
    Ok(running)
}

/// The same when an earlier restore is undone: one that was removed since then needs nothing.
pub(super) async fn still_running(engine: &dyn ContainerEngine, names: &[String]) -> Result<Vec<String>> {
    let mut running = Vec::new();
    for name in names {
        match engine.inspect(name).await {
            Ok(facts) if facts.running => running.push(name.clone()),
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e.on(name)),
        }
    }
    Ok(running)
}

/// In this order; the first that does not stop is an error.
pub(super) async fn stop(engine: &dyn ContainerEngine, names: &[String]) -> Result<()> {
    for name in names {
        engine.stop(name).await.map_err(|e| e.on(name))?;
    }
    Ok(())
}

/// In the reverse order. All are tried, whatever becomes of one.
pub(super) async fn start(engine: &dyn ContainerEngine, names: &[String]) -> Result<()> {
    let mut first: Option<Error> = None;
    for name in names.iter().rev() {
        if let Err(e) = engine.start(name).await {
            first.get_or_insert(e.on(name).hint(format!("docker start {name}")));
        }
    }
    first.map_or(Ok(()), Err)
}
