//! What belongs to a database as a whole and is in no schema of it: owner, privileges, comment, limits, settings, encoding, locale,
//! tablespace. It follows the database when it is renamed, so a restored one has to be given it.

use crate::{
    client::{ClientError, Session},
    quote::{ident, literal},
};
use backup_core::Error;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The properties of a database, as they are stored in `database/properties.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Properties {
    /// Major version of the server.
    pub(crate) server: u32,
    pub(crate) encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub(crate) locale_provider: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    pub(crate) locale: Option<String>,
    pub(crate) icu_rules: Option<String>,
    pub(crate) tablespace: String,
    pub(crate) owner: String,
    /// `None`: those that a new database has.
    pub(crate) privileges: Option<Vec<Privilege>>,
    pub(crate) comment: Option<String>,
    pub(crate) security_labels: Vec<(String, String)>,
    pub(crate) connection_limit: i64,
    pub(crate) is_template: bool,
    pub(crate) allow_connections: bool,
    /// `ALTER DATABASE … SET`, and `ALTER ROLE … IN DATABASE … SET` with the role.
    pub(crate) settings: Vec<(Option<String>, String)>,
}

/// One right of one role. No grantee: everybody.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Privilege {
    pub(crate) grantee: Option<String>,
    pub(crate) privilege: String,
    pub(crate) grantable: bool,
}

impl Properties {
    /// Those of a database of this server; `None` if there is none of this name.
    pub(crate) async fn read(
        session: &mut Session,
        database: &str,
        major: u32,
    ) -> Result<Option<Self>, ClientError> {
        let (provider, locale, rules) = match major {
            ..15 => ("'c'", "NULL", "NULL"),
            15 => ("d.datlocprovider", "d.daticulocale", "NULL"),
            16 => ("d.datlocprovider", "d.daticulocale", "d.daticurules"),
            17.. => ("d.datlocprovider", "d.datlocale", "d.daticurules"),
        };
        let name = literal(database);
        let sql = format!(
            "SELECT json_build_object(
              'server', {major}, 'encoding', pg_catalog.pg_encoding_to_char(d.encoding),
              'locale_provider', CASE {provider} WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
              'collate', d.datcollate, 'ctype', d.datctype, 'locale', {locale}, 'icu_rules', {rules},
              'tablespace', t.spcname, 'owner', pg_catalog.pg_get_userbyid(d.datdba),
              'privileges', CASE WHEN d.datacl IS NULL THEN NULL ELSE (SELECT coalesce(json_agg(json_build_object(
                'grantee', CASE WHEN a.grantee = 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(a.grantee) END,
                'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]') FROM pg_catalog.aclexplode(d.datacl) a) END,
              'comment', pg_catalog.shobj_description(d.oid, 'pg_database'),
              'security_labels', (SELECT coalesce(json_agg(json_build_array(l.provider, l.label) ORDER BY l.provider), '[]')
                FROM pg_catalog.pg_shseclabel l WHERE l.objoid = d.oid AND l.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass),
              'connection_limit', d.datconnlimit, 'is_template', d.datistemplate, 'allow_connections', d.datallowconn,
              'settings', (SELECT coalesce(json_agg(json_build_array(r.rolname, c)), '[]')
                FROM pg_catalog.pg_db_role_setting s LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole,
                  pg_catalog.unnest(s.setconfig) c WHERE s.setdatabase = d.oid))
            FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace WHERE d.datname = {name}"
        );
        let Some(text) = session.value(&sql).await? else { return Ok(None) };
        let mut read: Properties = serde_json::from_str(&text)
            .map_err(|e| ClientError::Protocol(format!("the properties of the database: {e}")))?;
        if let Some(list) = &mut read.privileges {
            list.sort();
        }
        read.settings.sort();
        read.comment = read.comment.and_then(without_mark);
        Ok(Some(read))
    }

    /// As it is stored.
    pub(crate) fn to_json(&self) -> backup_core::Result<Vec<u8>> {
        let failed = |e| Error::damaged("write the properties of the database", e);
        serde_json::to_vec_pretty(self).map_err(failed)
    }

    /// What must be equal after a restore: not the server, nor where its files are.
    pub(crate) fn digest(&self) -> backup_core::Result<String> {
        let kept = Properties { server: 0, tablespace: String::new(), ..self.clone() };
        let failed = |e| Error::damaged("compare the properties of the database", e);
        Ok(hex::encode(Sha256::digest(serde_json::to_vec(&kept).map_err(failed)?)))
    }

    /// Whether what cannot be changed later is equal.
    pub(crate) fn is_made_like(&self, other: &Properties) -> bool {
        let made = |p: &Properties| {
            let Properties { encoding, locale_provider, collate, ctype, locale, icu_rules, .. } = p.clone();
            (encoding, locale_provider, collate, ctype, locale, icu_rules)
        };
        made(self) == made(other)
    }

    /// `CREATE DATABASE`, with what cannot be changed later. The owner comes later, so that what is restored may be done by
    /// whoever restores.
    pub(crate) fn create(&self, database: &str, major: u32, tablespace: bool) -> String {
        let mut sql = format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            ident(database),
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype)
        );
        if major >= 15 {
            sql += &format!(" LOCALE_PROVIDER {}", self.locale_provider);
            match (&*self.locale_provider, &self.locale) {
                ("icu", Some(locale)) => sql += &format!(" ICU_LOCALE {}", literal(locale)),
                ("builtin", Some(locale)) => sql += &format!(" BUILTIN_LOCALE {}", literal(locale)),
                _ => {}
            }
            if let (16.., Some(rules)) = (major, &self.icu_rules) {
                sql += &format!(" ICU_RULES {}", literal(rules));
            }
        }
        if tablespace {
            sql += &format!(" TABLESPACE {}", ident(&self.tablespace));
        }
        sql
    }

    /// Statements that give a new database these properties, the owner first.
    pub(crate) fn apply(&self, database: &str, with_owner: bool) -> Vec<String> {
        let name = ident(database);
        let mut out = Vec::new();
        if with_owner {
            out.push(format!("ALTER DATABASE {name} OWNER TO {}", ident(&self.owner)));
            if let Some(privileges) = &self.privileges {
                out.push(format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
                out.push(format!("REVOKE ALL ON DATABASE {name} FROM {}", ident(&self.owner)));
                out.extend(privileges.iter().map(|p| {
                    let to = p.grantee.as_ref().map_or_else(|| "PUBLIC".to_owned(), |g| ident(g));
                    let more = if p.grantable { " WITH GRANT OPTION" } else { "" };
                    format!("GRANT {} ON DATABASE {name} TO {to}{more}", keyword(&p.privilege))
                }));
            }
        }
        if let Some(comment) = &self.comment {
            out.push(format!("COMMENT ON DATABASE {name} IS {}", literal(comment)));
        }
        for (provider, label) in &self.security_labels {
            out.push(format!(
                "SECURITY LABEL FOR {} ON DATABASE {name} IS {}",
                ident(provider),
                literal(label)
            ));
        }
        for (role, setting) in &self.settings {
            let Some((key, value)) = setting.split_once('=') else { continue };
            let target = match role {
                Some(role) => format!("ALTER ROLE {} IN DATABASE {name}", ident(role)),
                None => format!("ALTER DATABASE {name}"),
            };
            out.push(format!("{target} SET {} TO {}", setting_name(key), setting_value(key, value)));
        }
        if self.connection_limit != -1 {
            out.push(format!("ALTER DATABASE {name} CONNECTION LIMIT {}", self.connection_limit));
        }
        if self.is_template {
            out.push(format!("ALTER DATABASE {name} IS_TEMPLATE true"));
        }
        out
    }
}

/// How the last line of the comment of what a restore has made begins, until it is settled: nothing that belongs to it.
pub(crate) const MARK: &str = "[backup restore ";

pub(crate) fn without_mark(comment: String) -> Option<String> {
    match comment.rsplit_once('\n') {
        Some((text, last)) if last.starts_with(MARK) => Some(text.to_owned()),
        None if comment.starts_with(MARK) => None,
        _ => Some(comment),
    }
}

/// A privilege is a word of SQL: nothing else of an archive gets between the words.
pub(crate) fn keyword(word: &str) -> String {
    word.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').collect()
}

/// `plpgsql.extra_warnings`: each part is a name.
pub(crate) fn setting_name(key: &str) -> String {
    key.split('.').map(ident).collect::<Vec<_>>().join(".")
}

/// Settings that are lists of names are stored as SQL, all others as they are.
pub(crate) fn setting_value(key: &str, value: &str) -> String {
    const LISTS: [&str; 6] = [
        "local_preload_libraries",
        "search_path",
        "session_preload_libraries",
        "shared_preload_libraries",
        "temp_tablespaces",
        "unix_socket_directories",
    ];
    if !LISTS.contains(&key.to_ascii_lowercase().as_str()) {
        return literal(value);
    }
    let names: Vec<String> = names(value).iter().map(|name| literal(name)).collect();
    if names.is_empty() { "''".to_owned() } else { names.join(", ") }
}

/// `"$user", public`.
fn names(list: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = list.chars().peekable();
    loop {
        while rest.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
        let mut name = String::new();
        match rest.peek() {
            None => return out,
            Some('"') => {
                rest.next();
                while let Some(c) = rest.next() {
                    if c != '"' {
                        name.push(c);
                    } else if rest.next_if_eq(&'"').is_some() {
                        name.push('"');
                    } else {
                        break;
                    }
                }
            }
            Some(_) => {
                while let Some(c) = rest.next_if(|c| *c != ',') {
                    name.push(c);
                }
                name.truncate(name.trim_end().len());
            }
        }
        out.push(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_set_as_they_were_shown() {
        assert_eq!(
            setting_value("search_path", "\"$user\", public, \"a,\"\"b\""),
            "'$user', 'public', 'a,\"b'"
        );
        assert_eq!(setting_value("search_path", ""), "''");
        assert_eq!(setting_value("work_mem", "64MB"), "'64MB'");
        assert_eq!(setting_name("app.Key"), "\"app\".\"Key\"");
    }

    #[test]
    fn the_mark_of_a_restore_is_no_comment() {
        assert_eq!(without_mark("[backup restore x]".into()), None);
        assert_eq!(without_mark("a\nb\n[backup restore x]".into()).as_deref(), Some("a\nb"));
        assert_eq!(without_mark("[backup restore x]\nb".into()).as_deref(), Some("[backup restore x]\nb"));
    }

    #[test]
    fn nothing_of_a_stored_privilege_becomes_sql() {
        let bad = Privilege { grantee: None, privilege: "CONNECT; DROP DATABASE x".into(), grantable: false };
        let p = Properties { privileges: Some(vec![bad]), ..Properties::default() };
        assert!(p.apply("d", true).iter().all(|sql| !sql.contains(';')));
    }

    #[test]
    fn a_new_database_keeps_its_encoding_and_locale() {
        let p = Properties {
            encoding: "UTF8".into(),
            locale_provider: "icu".into(),
            collate: "C".into(),
            ctype: "C".into(),
            locale: Some("de".into()),
            ..Properties::default()
        };
        assert!(p.create("d", 17, false).ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'de'"));
        assert!(!p.create("d", 14, false).contains("PROVIDER"));
    }
}
