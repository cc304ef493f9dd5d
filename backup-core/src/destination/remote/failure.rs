//! What a remote server says, as an error of ours: kind, cause in plain words, the way out.

use crate::{Error, ErrorKind};
use opendal::ErrorKind as Remote;

/// An error of an operation on a place.
pub(super) fn error(operation: &'static str, subject: impl std::fmt::Display, e: &opendal::Error) -> Error {
    let reads = matches!(operation, "open" | "list" | "read");
    let text = everything(e);
    let code = between(&text, "code: \"", "\"").unwrap_or_default().to_owned();
    let (message, hint) = explain(e, text, &code);
    let kind = match e.kind() {
        // Without its container nothing can be said of what is in it.
        Remote::NotFound if reads && code != "ContainerNotFound" => ErrorKind::NotFound,
        _ => ErrorKind::Destination,
    };
    let error = Error::new(kind, operation, message).on(subject).retry(e.is_temporary());
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// An error that a server of objects has answered with: its code and message, if it gave any.
pub(super) fn said(
    operation: &'static str,
    subject: impl std::fmt::Display,
    status: http::StatusCode,
    code: &str,
    message: &str,
) -> Error {
    let said = Some(message).filter(|m| !m.is_empty());
    let (message, hint) = match code {
        "" => (format!("the server says: {status}"), None),
        code => of_code(code, said),
    };
    let error = Error::new(ErrorKind::Destination, operation, message).on(subject);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Message and hint.
fn explain(e: &opendal::Error, text: String, code: &str) -> (String, Option<&'static str>) {
    match code {
        "" => plain(e, text),
        code => of_code(code, between(&text, "message: \"", "\"").filter(|m| !m.is_empty())),
    }
}

/// What a code of S3 or Azure means.
fn of_code(code: &str, said: Option<&str>) -> (String, Option<&'static str>) {
    // Azure says on further lines which request it was and when.
    let said = said.map(|said| said.split("RequestId:").next().unwrap_or(said).trim());
    let with = |plain: &str| match said {
        Some(said) => format!("{plain} (the server says: {said})"),
        None => plain.to_owned(),
    };
    match code {
        "NoSuchBucket" => {
            (with("the bucket does not exist"), Some("make it first, or check its name and the endpoint"))
        }
        "ContainerNotFound" | "ContainerBeingDeleted" => (
            with("the container does not exist"),
            Some("make it first, or check its name, the account and the endpoint"),
        ),
        "InvalidBucketName" => (
            with("a bucket cannot have this name"),
            Some(
                "3 to 63 lower-case letters, digits, dots and hyphens, with a letter or digit at both ends: is the bucket the first \
                 part of the URL? s3://BUCKET/PREFIX",
            ),
        ),
        "InvalidResourceName" => (
            with("a container or prefix cannot be called so"),
            Some(
                "3 to 63 lower-case letters, digits and single hyphens, with a letter or digit at both ends: az://CONTAINER/PREFIX",
            ),
        ),
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => (
            with("the server does not accept the account key or SAS token"),
            Some(
                "check account, key and token, until when the token holds, and the clock of this machine: `backup config example` \
                 shows where they come from",
            ),
        ),
        "AuthorizationFailure" => (
            with("the server does not accept the account key or SAS token, or not from this address"),
            Some(
                "check account, key and token, until when the token holds, and the account's rules for networks",
            ),
        ),
        "AuthorizationPermissionMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationSourceIPMismatch"
        | "InsufficientAccountPermissions" => (
            with("access is denied"),
            Some(
                "a SAS token must allow to read, write, delete and list (`rwdl`), for containers and objects",
            ),
        ),
        "KeyBasedAuthenticationNotPermitted" => (
            with("the account takes no keys"),
            Some("allow access by key for the storage account: other ways to sign in are not known here"),
        ),
        "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" => (
            with("the container keeps what is in it from being changed"),
            Some(
                "locks and markers of runs must be removed: take a container without a policy of immutability",
            ),
        ),
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" | "ExpiredToken" => (
            with("the server does not accept the access key"),
            Some("check the access key and its secret: `backup config example` shows where they come from"),
        ),
        "AccessDenied" => (
            with("access is denied"),
            Some(
                "the key must be allowed to list the bucket, its uploads, and to read, write and delete objects",
            ),
        ),
        "RequestTimeTooSkewed" => (
            with("the clocks of this machine and of the server differ too much"),
            Some("set the clock of this machine"),
        ),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException" => {
            (with("the bucket is in another region"), Some("name its region: `region` or ?region="))
        }
        "SlowDown" | "ServiceUnavailable" | "ServerBusy" | "OperationTimedOut" => {
            (with("the server is too busy; it was tried again several times"), Some("try again later"))
        }
        c if c.contains("StorageFull") || c.contains("Quota") || c.contains("InsufficientStorage") => (
            with("the server has no space left"),
            Some("free some space there, or choose another destination"),
        ),
        "BadDigest" | "XAmzContentChecksumMismatch" | "InvalidDigest" | "Crc64Mismatch" => (
            with("what arrived there is not what was sent"),
            Some("look at the network, and at the memory of both machines"),
        ),
        code => (said.map_or_else(|| code.to_owned(), |said| format!("{code}: {said}")), None),
    }
}

fn plain(e: &opendal::Error, text: String) -> (String, Option<&'static str>) {
    if text.contains("failed to load signing credential") {
        let hint = "give BACKUP_<NAME>_ACCESS_KEY_ID and _SECRET_ACCESS_KEY for a configured archive, or AWS_ACCESS_KEY_ID \
                    and AWS_SECRET_ACCESS_KEY; of Azure BACKUP_<NAME>_ACCOUNT_KEY or _SAS_TOKEN, or AZURE_STORAGE_KEY or \
                    AZURE_STORAGE_SAS_TOKEN";
        return ("there are no credentials for it".to_owned(), Some(hint));
    }
    let status = e.to_string();
    if status.contains("status: 507") || text.contains("No space left") {
        return (
            "the server has no space left".to_owned(),
            Some("free some space there, or choose another destination"),
        );
    }
    if status.contains("status: 401") {
        let message = "the server does not accept user and password".to_owned();
        return (message, Some("give the user in the URL and the password as BACKUP_<NAME>_PASSWORD"));
    }
    if let Some(said) = text.strip_prefix("ssh does not connect: ")
        && let Some((message, hint)) = of_ssh(said)
    {
        return (message, Some(hint));
    }
    let hint = match e.kind() {
        _ if text.contains("invalid peer certificate") => Some(
            "if the server's certificate is right, name a file of it, or of what vouches for it: `ca_file` of the archive in backup.toml",
        ),
        _ if text.contains("the program ssh cannot be run") => {
            Some("install OpenSSH's client, or add it to PATH")
        }
        _ if text.contains("InvalidContentType") => Some(
            "no TLS is spoken there: is it http:// (webdav://), which nothing protects on its way, or another port?",
        ),
        _ if PLAIN_TO_TLS.iter().any(|said| text.contains(said)) => {
            Some("no plain HTTP is spoken there: is it https:// (webdavs://), or another port?")
        }
        // It is told of a connection, too, and the address is right.
        _ if text.contains("end of file before message length reached") => Some(
            "the server ends its answer before the length that it says: if that comes again, the object is damaged there (its log says \
             more), or what is in between cuts answers; take another backup, or a copy elsewhere",
        ),
        Remote::PermissionDenied => Some("check the credentials, and what they allow"),
        // So do some servers that expect TLS; and servers that end.
        _ if text.contains("connection closed before message completed") => Some(
            "check the address, also whether it is https:// (webdavs://) or http:// (webdav://), and whether the server is up",
        ),
        _ if text.contains("onnection refused") || text.contains("dns") || text.contains("connect") => {
            Some("check the address, and whether the server is up")
        }
        _ => None,
    };
    (text, hint)
}

/// What servers that expect TLS answer to plain HTTP: Go's, nginx, Apache; alerts of TLS and greetings of others are no HTTP.
const PLAIN_TO_TLS: [&str; 4] = [
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to an SSL-enabled server port",
    "invalid HTTP version parsed",
];

/// Why `ssh` did not connect, if there is another way out than to look at the address.
fn of_ssh(said: &str) -> Option<(String, &'static str)> {
    let plain = |why: &str| format!("{why} ({said})");
    if said.contains("HOST IDENTIFICATION HAS CHANGED") {
        // The rest of it is a banner of many lines.
        let key = between(said, "The fingerprint for the ", ". Please").map(|key| format!(": the {key}"));
        let known = between(said, "Offending ", " remove with").map(|key| format!("; known is the {key}"));
        let (key, known) = (key.unwrap_or_default(), known.unwrap_or_default());
        return Some((
            format!("the server has another host key than known_hosts says{key}{known}"),
            "somebody may be in between: ask who runs the server for the fingerprint of its key. If it is right: `ssh-keygen -R HOST` \
             (`[HOST]:PORT` for a port of its own), and connect once by hand with `ssh`",
        ));
    }
    if said.contains("Host key verification failed") {
        return Some((
            plain("the server's host key is not in known_hosts"),
            "as the user that runs this, connect once by hand with `ssh` and compare the fingerprint; or add to ~/.ssh/known_hosts what \
             `ssh-keyscan -p PORT HOST` prints, once it is compared",
        ));
    }
    if said.contains("Permission denied (") || said.contains("Too many authentication failures") {
        return Some((
            plain("the server accepts none of the keys that `ssh` offers"),
            "the user is that of the URL (sftp://USER@host/path), the keys are those of `ssh`, which asks for no passphrase here: \
             `ssh-add FILE`, or IdentityFile in ~/.ssh/config; `ssh -v USER@HOST` shows which are offered",
        ));
    }
    None
}

/// The message and all that is under it, each said once, on one line.
fn everything(e: &opendal::Error) -> String {
    let mut out = match e.message().trim() {
        "" => e.kind().to_string(),
        message => message.to_owned(),
    };
    let mut under = std::error::Error::source(e);
    while let Some(inner) = under {
        let text = inner.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        under = inner.source();
    }
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}
