//! `backup init`: makes a place for backups, and prints what has to be kept elsewhere.

use super::session::Session;
use crate::{
    args::Init,
    exit,
    failure::{Failure, Result},
};
use backup_kit::{NewIdentity, state_dir, without_secrets};
use serde_json::json;
use std::fmt::Write;

pub(super) async fn run(args: &Init, session: &Session) -> Result<u8> {
    let settings = &session.settings;
    if args.encrypt && args.identity_file.is_none() && (settings.output.json || settings.output.quiet) {
        return Err(Failure::usage(
            "print the recovery sheet",
            "the secret key is printed once, and nowhere else",
            "--identity-file FILE keeps it in a new file; or leave --json and --quiet out",
        ));
    }
    let mut spec = settings.archive(Some(&args.archive), "--to")?;
    let encrypted_already = spec.is_encrypting();
    if args.encrypt && encrypted_already {
        return Err(Failure::usage(
            "make a new pair of keys",
            "the configuration says already to whom this archive is encrypted",
            "leave --encrypt out, or name the archive by its place",
        ));
    }
    if args.encrypt {
        spec.refuse_new_keys().await?;
    }
    if let Some(format) = args.format {
        spec = spec.format(format);
    }
    let new = args.encrypt.then(NewIdentity::generate);
    let recipients = match &new {
        Some(new) => vec![new.recipient.clone()],
        None => args.recipient.clone(),
    };
    if !recipients.is_empty() {
        spec = spec.recipients(&recipients);
    }
    if let (Some(new), Some(file)) = (&new, &args.identity_file) {
        // A place that cannot be used needs no key, and the key is kept before the place asks for it.
        spec.open()?.preflight(None, &session.context()).await?;
        new.keep(file)?;
    }
    let warnings = spec.init(&session.context()).await?;
    spec.remember_filled(&state_dir()?);
    for warning in warnings {
        settings.output.warning(warning);
    }
    let place = spec.to_string();
    settings.output.result(&match spec.is_encrypting() {
        true => sheet(args, &place, &recipients, new.as_ref()),
        false => format!("{place}: ready for backups, not encrypted (--encrypt makes keys)\n"),
    })?;
    let object = json!({
        "archive": place,
        "encrypted": spec.is_encrypting(),
        "recipients": recipients,
        "identity_file": args.identity_file,
    });
    settings.output.object(exit::COMPLETE, object)?;
    Ok(exit::COMPLETE)
}

/// As a word that can be pasted into a shell.
fn for_a_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The recovery sheet: what whoever restores needs, on paper.
fn sheet(args: &Init, place: &str, recipients: &[String], new: Option<&NewIdentity>) -> String {
    let archive = for_a_shell(&without_secrets(&args.archive));
    let mut out = format!("# Recovery sheet of the backups in {place}\n\n");
    let secret = match (new, &args.identity_file) {
        (Some(new), None) => {
            out.push_str(
                "Print this page, and keep it away from the machine that makes the backups: it is nowhere else.\n\
                 Who has it can read every backup of this archive. Without it nobody can, whatever else is left.\n\n",
            );
            Some(new.secret.expose().to_owned())
        }
        (Some(_), Some(file)) => {
            let _ = write!(
                out,
                "The secret key is in {0}. Copy it to a place away from this machine, and take it off this one if\n\
                 this one only makes backups. Without it nobody can read the backups, whatever else is left.\n\n",
                file.display()
            );
            None
        }
        _ => {
            out.push_str(
                "The secret keys of the recipients read these backups. Without one of them nobody can.\n\n",
            );
            None
        }
    };
    if let Some(secret) = secret {
        let _ = write!(out, "Secret key (identity):\n\n    {secret}\n\n");
    }
    if !recipients.is_empty() {
        let _ = write!(out, "Public key (recipient):\n\n    {}\n\n", recipients.join("\n    "));
        let quoted: Vec<String> = recipients.iter().map(|r| format!("{r:?}")).collect();
        let _ = write!(
            out,
            "## To make backups, which needs the public key only\n\n    \
             backup create SOURCE --to {archive} --recipient '{}'\n\n\
             or in backup.toml, below the archive: encrypt = {{ recipients = [{}] }}\n\n",
            recipients.join("' --recipient '"),
            quoted.join(", ")
        );
    }
    let _ = write!(
        out,
        "## To read them with this program\n\n\
         Write the secret key into a file that only you can read (key.txt here), then\n\n    \
         backup list --from {archive}\n    \
         backup restore latest --from {archive} --identity key.txt --to ./restored\n\n\
         ## Without this program\n\n\
         With age (https://age-encryption.org), GNU tar 1.29 or newer, and zstd (for .tar.gz gzip, for .tar.xz xz), in an empty folder:\n\n    \
         mkdir unpacked && cd unpacked\n    \
         age -d -i ../key.txt ../BACKUP.tar.zst.age | zstd -dc | tar -x -p --xattrs --xattrs-include='*' --acls --numeric-owner\n    \
         cat SHA256SUMS/* | sha256sum --check --quiet\n\n\
         What is unpacked has a RESTORE.md that says the rest.\n"
    );
    out
}
