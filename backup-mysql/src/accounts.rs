//! Users, roles and what they may do. They belong to the server and not to a database.

use crate::{
    catalog::{Version, fields},
    client::Session,
    ddl::without_default_role,
    error::ClientError,
    quote::{ident, text},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where they are in an archive: a name that no database and no dump of one can have.
pub(crate) const USERS_FILE: &str = "users+grants.sql";
/// The subject of the notes that name them.
pub(crate) const USERS_SUBJECT: &str = "users";

/// How a grant begins that lets a user be a proxy for others.
pub(crate) const PROXY: &str = "GRANT PROXY ON ";

/// The name of a user or a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// None: a role of MariaDB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Some(host) => write!(f, "{}@{}", ident(&self.name), ident(host)),
            None => f.write_str(&ident(&self.name)),
        }
    }
}

/// What a statement is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AccountStep {
    Create,
    Grant,
    DefaultRole,
}

/// Which account a statement is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccountStatement {
    pub(crate) account: Account,
    pub(crate) step: AccountStep,
}

/// An account as it is on a server.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) account: Account,
    /// How it logs in: the plugin, or `role`.
    pub(crate) login: String,
    pub(crate) create: String,
    pub(crate) grants: Vec<String>,
    pub(crate) default_roles: Vec<String>,
}

impl Account {
    /// Accounts that each server makes for itself.
    fn is_of_the_server(&self) -> bool {
        let at_home = self.host.as_deref() == Some("localhost");
        at_home && ["mysql.sys", "mysql.session", "mysql.infoschema", "mariadb.sys"].contains(&&*self.name)
            || self.host.is_none() && self.name.eq_ignore_ascii_case("PUBLIC")
    }

    /// Whether it is on this server.
    pub(crate) async fn exists(&self, session: &mut Session) -> Result<bool, ClientError> {
        let sql = format!(
            "SELECT 1 FROM mysql.user WHERE User = {} AND Host = {}",
            text(&self.name),
            text(self.host.as_deref().unwrap_or_default())
        );
        Ok(session.first(&sql).await?.is_some())
    }

    pub(crate) fn drop_statement(&self) -> String {
        format!("DROP {} IF EXISTS {self}", if self.host.is_some() { "USER" } else { "ROLE" })
    }
}

/// All but those of the server itself, and what cannot be taken along, for people.
pub(crate) async fn list(
    session: &mut Session,
    version: &Version,
) -> Result<(Vec<Found>, Vec<String>), ClientError> {
    // Hashes are bytes, which no text holds.
    session.try_set(&["print_identified_with_as_hex = ON"]).await?;
    let role = if version.mariadb { "is_role" } else { "'N'" };
    let sql = format!("SELECT User, Host, plugin, {role} FROM mysql.user ORDER BY {role} DESC, User, Host");
    let (mut found, mut warnings) = (Vec::new(), Vec::new());
    for row in session.rows(&sql).await? {
        let [name, host, plugin, role] = fields(row);
        let is_role = role == "Y";
        let account = Account { name, host: (!is_role).then_some(host) };
        if account.is_of_the_server() {
            let is_nothing = |g: &String| g.starts_with("GRANT USAGE ON *.* ");
            if is_role && !grants_of(session, "PUBLIC", version).await?.iter().all(is_nothing) {
                warnings.push("grants to PUBLIC are not in the backup".to_owned());
            }
            continue;
        }
        let create = match is_role {
            true => format!("CREATE ROLE {account}"),
            false => {
                let row = session.first(&format!("SHOW CREATE USER {account}")).await?;
                let [create] = fields(row.unwrap_or_default());
                create
            }
        };
        let (create, mut default_roles) = match without_default_role(&create) {
            Some((create, roles)) => (create, vec![format!("ALTER USER {account} DEFAULT ROLE {roles}")]),
            None => (create, Vec::new()),
        };
        let (mut grants, defaults): (Vec<_>, Vec<_>) = grants_of(session, &account.to_string(), version)
            .await?
            .into_iter()
            .partition(|g| !g.starts_with("SET DEFAULT ROLE"));
        if grants.is_empty() {
            // There is always one of USAGE.
            return Err(ClientError::Lost(format!("no grants of {account} could be read")));
        }
        if version.mariadb && !is_role {
            grants.extend(proxies_of(session, &account).await?);
        }
        default_roles.extend(defaults);
        let login = if is_role { "role".to_owned() } else { plugin };
        found.push(Found { account, login, create, grants, default_roles });
    }
    Ok((found, warnings))
}

/// Those of the account itself: MariaDB prints those of roles that it has, too, and those to be a proxy in a form of their own.
async fn grants_of(session: &mut Session, name: &str, version: &Version) -> Result<Vec<String>, ClientError> {
    let rows = session.rows(&format!("SHOW GRANTS FOR {name}")).await?;
    let lines = rows.into_iter().map(fields::<1>).map(|[line]| line);
    if !version.mariadb {
        return Ok(lines.collect());
    }
    let lines = lines.filter(|line| !line.starts_with(PROXY));
    let (to, from, of) = (format!(" TO {name}"), format!(" FROM {name}"), format!(" FOR {name}"));
    Ok(lines.filter(|l| l.contains(&to) || l.contains(&from) || l.contains(&of)).collect())
}

/// For whom a user of MariaDB may be a proxy. Its own statements for that quote no name, so that not all of them can be run.
async fn proxies_of(session: &mut Session, account: &Account) -> Result<Vec<String>, ClientError> {
    let sql = format!(
        "SELECT Proxied_user, Proxied_host, With_grant FROM mysql.proxies_priv WHERE User = {} AND Host = {} ORDER BY 1, 2",
        text(&account.name),
        text(account.host.as_deref().unwrap_or_default())
    );
    let proxied = session.rows(&sql).await?.into_iter().map(|row| {
        let [name, host, grantable] = fields(row);
        let more = if grantable == "1" { " WITH GRANT OPTION" } else { "" };
        // Without a name it is anybody; without a host, from anywhere.
        let host = if host.is_empty() { "%" } else { &*host };
        format!("{PROXY}{}@{} TO {account}{more}", text(&name), text(host))
    });
    Ok(proxied.collect())
}
