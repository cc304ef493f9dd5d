//! Roles and tablespaces: they belong to a server and not to a database.

use crate::{
    client::{ClientError, Session},
    properties::{keyword, setting_name, setting_value, without_mark},
    quote::{ident, literal},
};
use backup_core::{Entry, Error, Fact, Facts, Result, Stage};
use serde::{Deserialize, Serialize};

/// Where they are in a component: a name that no dump has.
pub(crate) const GLOBALS: &str = "roles+tablespaces.sql";
/// The subjects of the notes that name them.
pub(crate) const ROLES: &str = "roles";
pub(crate) const TABLESPACES: &str = "tablespaces";

const HEAD: &str = "-- Roles and tablespaces of the server. By hand: psql -X -d postgres -f 'roles+tablespaces.sql'. Those that exist already stay as they are.\n";
/// Since then a membership says what it is good for.
const MEMBERSHIP_OPTIONS: u32 = 16;
/// Since then a role may be let set what others may not.
const PARAMETER_PRIVILEGES: u32 = 15;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Object {
    Role,
    Tablespace,
}

impl Object {
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            Object::Role => "ROLE",
            Object::Tablespace => "TABLESPACE",
        }
    }

    pub(crate) fn subject(self) -> &'static str {
        match self {
            Object::Role => ROLES,
            Object::Tablespace => TABLESPACES,
        }
    }

    /// The query for number, name and comment of all of its kind.
    pub(crate) fn listing(self) -> &'static str {
        match self {
            Object::Role => {
                "SELECT rolname, pg_catalog.shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles"
            }
            Object::Tablespace => {
                "SELECT spcname, pg_catalog.shobj_description(oid, 'pg_tablespace') FROM pg_catalog.pg_tablespace"
            }
        }
    }
}

/// What a statement is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    Create,
    /// Of a role, or a right on a tablespace.
    Set,
    Comment,
    /// In another role.
    Member,
}

/// Whose a statement is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    pub(crate) object: Object,
    /// Of a membership: of the member.
    pub(crate) name: String,
    pub(crate) step: Step,
    /// Length of the statement in bytes.
    bytes: usize,
    /// Of the object, with its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
}

/// What the entry says of itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    statements: Vec<Of>,
}

/// All of a server, in an order in which each finds what it needs.
#[derive(Default)]
pub(crate) struct Globals {
    list: Vec<(Of, String)>,
    pub(crate) facts: Facts,
    /// What the server has and the list has not, for people.
    pub(crate) left_out: Vec<String>,
}

#[derive(Deserialize)]
struct Role {
    name: String,
    attributes: Vec<String>,
    password: Option<String>,
    valid_until: Option<String>,
    connection_limit: i64,
    comment: Option<String>,
    settings: Vec<String>,
    login: bool,
}

#[derive(Deserialize)]
struct Tablespace {
    name: String,
    owner: String,
    location: String,
    options: Vec<String>,
    comment: Option<String>,
    creators: Vec<(Option<String>, bool)>,
}

/// Whether this user may read the passwords of roles.
pub(crate) async fn passwords_are_readable(session: &mut Session) -> std::result::Result<bool, ClientError> {
    let sql = "SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT')";
    Ok(session.value(sql).await?.as_deref() == Some("t"))
}

impl Globals {
    pub(crate) async fn read(session: &mut Session, major: u32) -> std::result::Result<Self, ClientError> {
        let mut globals = Globals::default();
        let readable = passwords_are_readable(session).await?;
        let (password, table) = if readable { ("r.rolpassword", "pg_authid") } else { ("NULL", "pg_roles") };
        let sql = format!(
            "SELECT json_build_object('name', r.rolname, 'login', r.rolcanlogin, 'password', {password}, 'valid_until', r.rolvaliduntil::text,
               'connection_limit', r.rolconnlimit, 'comment', pg_catalog.shobj_description(r.oid, 'pg_authid'),
               'attributes', json_build_array(
                 CASE WHEN r.rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END, CASE WHEN r.rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
                 CASE WHEN r.rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END, CASE WHEN r.rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
                 CASE WHEN r.rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END, CASE WHEN r.rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
                 CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END),
               'settings', (SELECT coalesce(json_agg(c), '[]') FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
                 WHERE s.setrole = r.oid AND s.setdatabase = 0))
             FROM pg_catalog.{table} r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname"
        );
        let roles: Vec<Role> = listed(session, &sql).await?;
        roles.iter().for_each(|role| globals.create_role(role));
        roles.iter().for_each(|role| globals.set_role(role));
        let options = match major {
            MEMBERSHIP_OPTIONS.. => "bool_or(a.inherit_option), bool_or(a.set_option)",
            _ => "NULL, NULL",
        };
        let members = format!(
            "SELECT g.rolname, m.rolname, bool_or(a.admin_option), {options} FROM pg_catalog.pg_auth_members a
             JOIN pg_catalog.pg_roles g ON g.oid = a.roleid JOIN pg_catalog.pg_roles m ON m.oid = a.member
             WHERE m.rolname !~ '^pg_' GROUP BY 1, 2 ORDER BY 1, 2"
        );
        for row in session.query(&members).await? {
            let [Some(group), Some(member), Some(admin), inherit, set] = row.as_slice() else { continue };
            globals.membership(group, member, admin == "t", inherit.as_deref().zip(set.as_deref()));
        }
        let sql = "SELECT json_build_object('name', t.spcname, 'owner', pg_catalog.pg_get_userbyid(t.spcowner), 'location', pg_catalog.pg_tablespace_location(t.oid),
              'options', coalesce(array_to_json(t.spcoptions), '[]'), 'comment', pg_catalog.shobj_description(t.oid, 'pg_tablespace'),
              'creators', (SELECT coalesce(json_agg(json_build_array(CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END, a.is_grantable)), '[]')
                FROM pg_catalog.aclexplode(t.spcacl) a WHERE a.grantee <> t.spcowner))
            FROM pg_catalog.pg_tablespace t WHERE t.spcname !~ '^pg_' ORDER BY t.spcname";
        let tablespaces: Vec<Tablespace> = listed(session, sql).await?;
        tablespaces.iter().for_each(|tablespace| globals.tablespace(tablespace));
        if major >= PARAMETER_PRIVILEGES {
            // The first role has them all, without being given them.
            let sql = "SELECT p.parname, r.rolname, a.privilege_type, a.is_grantable
                FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
                WHERE a.grantee <> 10 AND r.rolname !~ '^pg_' ORDER BY 1, 2, 3";
            for row in session.query(sql).await? {
                let [Some(setting), Some(role), Some(privilege), Some(grantable)] = row.as_slice() else {
                    continue;
                };
                globals.right_on_setting(setting, role, privilege, grantable == "t");
            }
        }
        globals.left_out = left_out(session, major).await?;
        Ok(globals)
    }

    fn push(&mut self, object: Object, name: &str, step: Step, sql: String) {
        let of = Of { object, name: name.to_owned(), step, bytes: sql.len(), comment: None };
        self.list.push((of, sql));
    }

    fn comment(&mut self, object: Object, name: &str, comment: Option<&String>) {
        let Some(comment) = comment.cloned().and_then(without_mark) else { return };
        let sql = format!("COMMENT ON {} {} IS {}", object.keyword(), ident(name), literal(&comment));
        if let Some((of, _)) =
            self.list.iter_mut().rev().find(|(of, _)| of.step == Step::Create && of.name == name)
        {
            of.comment = Some(comment);
        }
        self.push(object, name, Step::Comment, sql);
    }

    fn create_role(&mut self, role: &Role) {
        let mut sql = format!("CREATE ROLE {} WITH {}", ident(&role.name), role.attributes.join(" "));
        if role.connection_limit != -1 {
            sql += &format!(" CONNECTION LIMIT {}", role.connection_limit);
        }
        if let Some(password) = &role.password {
            sql += &format!(" PASSWORD {}", literal(password));
        }
        if let Some(until) = &role.valid_until {
            sql += &format!(" VALID UNTIL {}", literal(until));
        }
        self.push(Object::Role, &role.name, Step::Create, sql);
        self.comment(Object::Role, &role.name, role.comment.as_ref());
        let login = if role.login { "may log in" } else { "no login" };
        self.facts.insert(ROLES, role.name.clone(), Fact::Note(login.into()));
    }

    fn set_role(&mut self, role: &Role) {
        for setting in &role.settings {
            let Some((key, value)) = setting.split_once('=') else { continue };
            let (name, value) = (setting_name(key), setting_value(key, value));
            let sql = format!("ALTER ROLE {} SET {name} TO {value}", ident(&role.name));
            self.push(Object::Role, &role.name, Step::Set, sql);
        }
    }

    fn right_on_setting(&mut self, setting: &str, role: &str, privilege: &str, grantable: bool) {
        let more = if grantable { " WITH GRANT OPTION" } else { "" };
        let (setting, to) = (setting_name(setting), ident(role));
        let sql = format!("GRANT {} ON PARAMETER {setting} TO {to}{more}", keyword(privilege));
        self.push(Object::Role, role, Step::Set, sql);
    }

    fn membership(&mut self, group: &str, member: &str, admin: bool, options: Option<(&str, &str)>) {
        let with = match options {
            Some((inherit, set)) => {
                format!(" WITH ADMIN {admin}, INHERIT {}, SET {}", inherit == "t", set == "t")
            }
            None if admin => " WITH ADMIN OPTION".to_owned(),
            None => String::new(),
        };
        let sql = format!("GRANT {} TO {}{with}", ident(group), ident(member));
        self.push(Object::Role, member, Step::Member, sql);
    }

    fn tablespace(&mut self, t: &Tablespace) {
        let name = ident(&t.name);
        let mut sql =
            format!("CREATE TABLESPACE {name} OWNER {} LOCATION {}", ident(&t.owner), literal(&t.location));
        if !t.options.is_empty() {
            let options = t.options.iter().filter_map(|o| o.split_once('='));
            let options: Vec<String> =
                options.map(|(k, v)| format!("{} = {}", ident(k), literal(v))).collect();
            sql += &format!(" WITH ({})", options.join(", "));
        }
        self.push(Object::Tablespace, &t.name, Step::Create, sql);
        self.comment(Object::Tablespace, &t.name, t.comment.as_ref());
        for (grantee, grantable) in &t.creators {
            let to = grantee.as_ref().map_or_else(|| "PUBLIC".to_owned(), |g| ident(g));
            let more = if *grantable { " WITH GRANT OPTION" } else { "" };
            self.push(
                Object::Tablespace,
                &t.name,
                Step::Set,
                format!("GRANT CREATE ON TABLESPACE {name} TO {to}{more}"),
            );
        }
        self.facts.insert(TABLESPACES, t.name.clone(), Fact::Note(t.location.clone()));
    }

    /// As an entry of a backup.
    pub(crate) fn into_entry(self) -> (Entry, Vec<u8>) {
        let mut text = HEAD.to_owned();
        for (_, sql) in &self.list {
            text += sql;
            text += ";\n";
        }
        let stored = Stored { statements: self.list.into_iter().map(|(of, _)| of).collect() };
        // A struct of texts and numbers.
        let store = serde_json::to_value(stored).ok();
        let entry = Entry { store, ..Entry::file(GLOBALS, Stage::Prepare).sized(text.len() as u64) };
        (entry, text.into_bytes())
    }
}

/// The statements of such an entry, each with what it is of.
pub(crate) fn statements(entry: &Entry, text: &str) -> Result<Vec<(Of, String)>> {
    let wrong = |why: &str| Error::damaged("read roles and tablespaces", why).on(GLOBALS);
    let store = entry.store.clone().ok_or_else(|| wrong("it does not say whose each statement is"))?;
    let stored: Stored = serde_json::from_value(store).map_err(|e| wrong(&e.to_string()))?;
    let mut rest = text.strip_prefix(HEAD).ok_or_else(|| wrong("its head is not ours"))?;
    let mut out = Vec::new();
    for of in stored.statements {
        let cut =
            rest.split_at_checked(of.bytes).and_then(|(sql, rest)| Some((sql, rest.strip_prefix(";\n")?)));
        let (sql, left) = cut.ok_or_else(|| wrong("its statements have other lengths"))?;
        out.push((of, sql.to_owned()));
        rest = left;
    }
    if rest.is_empty() { Ok(out) } else { Err(wrong("there is more than it says")) }
}

/// What belongs to the server as roles do, and is not among them.
async fn left_out(session: &mut Session, major: u32) -> std::result::Result<Vec<String>, ClientError> {
    let mut kinds = vec![
        (
            "SELECT string_agg(pg_catalog.split_part(c, '=', 1), ', ') FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
             WHERE s.setrole = 0 AND s.setdatabase = 0",
            "settings of all roles (ALTER ROLE ALL SET)",
        ),
        (
            "SELECT string_agg(pg_catalog.concat(l.provider, ' on ', coalesce(r.rolname, t.spcname)), ', ') FROM pg_catalog.pg_shseclabel l
             LEFT JOIN pg_catalog.pg_roles r ON l.classoid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND r.oid = l.objoid
             LEFT JOIN pg_catalog.pg_tablespace t ON l.classoid = 'pg_catalog.pg_tablespace'::pg_catalog.regclass AND t.oid = l.objoid
             WHERE r.oid IS NOT NULL OR t.oid IS NOT NULL",
            "security labels of roles and tablespaces",
        ),
    ];
    if major >= PARAMETER_PRIVILEGES {
        let sql = "SELECT string_agg(p.parname, ', ') FROM pg_catalog.pg_parameter_acl p
            WHERE EXISTS (SELECT FROM pg_catalog.aclexplode(p.paracl) a WHERE a.grantee = 0)";
        kinds.push((sql, "privileges of everybody on settings (GRANT … ON PARAMETER … TO PUBLIC)"));
    }
    let mut out = Vec::new();
    for (sql, what) in kinds {
        if let Some(which) = session.value(sql).await? {
            out.push(format!("{what} are not in the backup: {which}"));
        }
    }
    Ok(out)
}

async fn listed<T: for<'de> Deserialize<'de>>(
    session: &mut Session,
    sql: &str,
) -> std::result::Result<Vec<T>, ClientError> {
    let rows = session.query(sql).await?;
    rows.into_iter()
        .map(|row| {
            let text = row.into_iter().next().flatten().unwrap_or_default();
            // What is wrong is told without the text: there may be a password in it.
            serde_json::from_str(&text).map_err(|e| ClientError::Protocol(format!("the list of roles: {e}")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> Globals {
        let mut globals = Globals::default();
        globals.create_role(&Role {
            name: "a\"b".into(),
            attributes: vec!["NOSUPERUSER".into(), "LOGIN".into()],
            password: Some("SCRAM-SHA-256$x".into()),
            valid_until: Some("2030-01-01 00:00:00+00".into()),
            connection_limit: 3,
            comment: Some("two\nlines;\n".into()),
            settings: vec![],
            login: true,
        });
        globals.membership("g", "a\"b", true, Some(("t", "f")));
        globals.membership("g", "m", true, None);
        globals
    }

    #[test]
    fn every_statement_is_found_again_with_its_owner() {
        let list = made().list;
        let (entry, text) = made().into_entry();
        let text = String::from_utf8(text).unwrap();
        let read = statements(&entry, &text).unwrap();
        assert_eq!(read, list);
        assert!(
            read[0].1.contains("PASSWORD 'SCRAM-SHA-256$x' VALID UNTIL")
                && read[0].1.starts_with("CREATE ROLE \"a\"\"b\" WITH")
        );
        assert_eq!(read[0].0.comment.as_deref(), Some("two\nlines;\n"));
        assert!(read[2].1.ends_with("WITH ADMIN true, INHERIT true, SET false"), "{}", read[2].1);
        assert!(read[3].1.ends_with("WITH ADMIN OPTION"));
        assert!(
            !serde_json::to_string(&entry.store).unwrap().contains("SCRAM"),
            "passwords are in the content alone"
        );
        assert!(statements(&entry, &text[..text.len() - 1]).is_err());
        assert!(statements(&entry, &format!("{text}DROP ROLE x;\n")).is_err());
    }
}
