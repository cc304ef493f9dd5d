//! Asks before anything is replaced.

use crate::{
    failure::{Failure, Result},
    render::{printable, terminal},
};
use backup_kit::{CancellationToken, Confirmation, CoreError, ErrorKind, PlanId, RestorePlan};
use std::io::IsTerminal;

/// How consent was given on the command line.
pub(crate) struct Given<'a> {
    pub(crate) confirm: Option<&'a str>,
    pub(crate) yes: bool,
}

impl Given<'_> {
    /// Whether a person must be asked.
    pub(crate) fn must_be_asked(&self, plan: &RestorePlan) -> bool {
        plan.needs_consent() && self.confirm.is_none() && !self.yes
    }
}

/// The confirmation of a plan: as given, or asked for on a terminal. `None`: it needs none.
pub(crate) async fn obtain(
    plan: &RestorePlan,
    given: Given<'_>,
    cancel: &CancellationToken,
) -> Result<Option<Confirmation>> {
    if let Some(text) = given.confirm {
        let id: PlanId = text.parse()?;
        if id != plan.id() {
            return Err(refused(format!("the plan has changed: it is {} now, not {id}", plan.id()))
                .hint("look at it again: --dry-run")
                .into());
        }
        return Ok(Some(Confirmation::of(id)));
    }
    if !plan.needs_consent() {
        return Ok(None);
    }
    if given.yes {
        return Ok(Some(Confirmation::disposable()));
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused("it was not confirmed, and there is no terminal to ask on")
            .hint(format!("look at the plan with --dry-run, then --confirm {}", plan.id()))
            .into());
    }
    let module = plan.plan().backup.module.clone();
    let question = format!("Type the name of the module ({module}) to go on: ");
    if is_it(&ask(&question, cancel).await?, &module) {
        return Ok(Some(Confirmation::of(plan.id())));
    }
    Err(refused("it was not confirmed").into())
}

/// Consent to dropping what a restore brought, by the module's name. `--yes` stands for it in scripts.
pub(crate) async fn ask_for(module: &str, dropped: &str, cancel: &CancellationToken) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(refused(format!("{dropped}; it was not confirmed, and there is no terminal to ask on"))
            .hint("--yes says that this is meant")
            .into());
    }
    let question = format!("{dropped}. Type the name of the module ({module}) to go on: ");
    if is_it(&ask(&question, cancel).await?, module) {
        return Ok(());
    }
    Err(refused("it was not confirmed").into())
}

/// A name that cannot be typed is typed as it was shown.
fn is_it(answer: &str, module: &str) -> bool {
    answer == module || answer == printable::line(module)
}

async fn ask(question: &str, cancel: &CancellationToken) -> Result<String> {
    let _asking = terminal::question();
    terminal::tell(&printable::line(question));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map(|_| line.trim().to_owned())
    });
    tokio::select! {
        answer = answer => Ok(answer.map_err(|e| Failure::from(std::io::Error::other(e)))??),
        () = cancel.cancelled() => Err(CoreError::cancelled().into()),
    }
}

fn refused(message: impl std::fmt::Display) -> CoreError {
    CoreError::new(ErrorKind::Refused, "restore", message)
}
