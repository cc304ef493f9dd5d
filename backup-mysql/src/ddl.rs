//! What servers print with `SHOW CREATE`, taken apart.

/// A `CREATE TABLE` without what is added when the data is there.
#[derive(Debug, PartialEq)]
pub(crate) struct SplitTable {
    /// With its primary key only, where that is possible.
    pub(crate) table: String,
    /// `ADD …` for each secondary key.
    pub(crate) keys: Vec<String>,
    /// `ADD CONSTRAINT …` for each foreign key.
    pub(crate) foreign_keys: Vec<String>,
}

/// Parts keys and foreign keys from a `CREATE TABLE` as the server prints it.
///
/// Without `keys_later` only foreign keys are parted. Keys stay where the table needs them, too: an automatic number must be the first of a key, a table without a primary key is stored in
/// the order of its first unique one, and other engines build keys while they load.
pub(crate) fn split_table(create: &str, keys_later: bool) -> SplitTable {
    let whole = || SplitTable { table: create.to_owned(), keys: Vec::new(), foreign_keys: Vec::new() };
    let Some((open, ends)) = definitions(create) else { return whole() };
    let Some(close) = ends.last().copied() else { return whole() };
    let mut list = Vec::new();
    let mut from = open + 1;
    for end in &ends {
        list.push(&create[from..*end]);
        from = end + 1;
    }
    let apart = keys_later && keys_may_come_later(&list);
    let (mut kept, mut keys, mut foreign_keys) = (Vec::new(), Vec::new(), Vec::new());
    for definition in list {
        let trimmed = definition.trim();
        if is_foreign_key(trimmed) {
            foreign_keys.push(format!("ADD {trimmed}"));
        } else if apart && is_key(trimmed) {
            keys.push(format!("ADD {trimmed}"));
        } else {
            kept.push(definition);
        }
    }
    if keys.is_empty() && foreign_keys.is_empty() {
        return whole();
    }
    let newline = if create[..close].ends_with('\n') { "\n" } else { "" };
    let body = kept.join(",");
    let table = format!("{}{}{newline}{}", &create[..=open], body.trim_end_matches('\n'), &create[close..]);
    SplitTable { table, keys, foreign_keys }
}

fn keys_may_come_later(definitions: &[&str]) -> bool {
    let Some(primary) = definitions.iter().find_map(|d| d.trim().strip_prefix("PRIMARY KEY (")) else {
        return false;
    };
    let automatic =
        definitions.iter().map(|d| d.trim()).find(|d| d.starts_with('`') && has_word(d, "AUTO_INCREMENT"));
    match automatic.and_then(first_name) {
        None => true,
        Some(column) => first_name(primary) == Some(column),
    }
}

/// The backquoted name that a text begins with, quotes included.
fn first_name(text: &str) -> Option<&str> {
    let end = Tokens::new(text).next().filter(|t| t.kind == Kind::Name)?.end;
    text.get(..end)
}

fn has_word(text: &str, word: &str) -> bool {
    Tokens::new(text).any(|t| t.kind == Kind::Word && text.get(t.start..t.end) == Some(word))
}

fn is_key(definition: &str) -> bool {
    ["KEY ", "UNIQUE KEY ", "FULLTEXT KEY ", "SPATIAL KEY ", "VECTOR KEY "]
        .iter()
        .any(|k| definition.starts_with(k))
}

fn is_foreign_key(definition: &str) -> bool {
    if definition.starts_with("FOREIGN KEY") {
        return true;
    }
    let Some(rest) = definition.strip_prefix("CONSTRAINT ") else { return false };
    first_name(rest)
        .and_then(|name| rest.get(name.len()..))
        .is_some_and(|r| r.trim_start().starts_with("FOREIGN KEY"))
}

/// Where the list of definitions opens, and where each of them ends; the last end is the closing bracket.
fn definitions(create: &str) -> Option<(usize, Vec<usize>)> {
    let (mut open, mut depth, mut ends) = (None, 0usize, Vec::new());
    for token in Tokens::new(create) {
        match token.kind {
            Kind::Other(b'(') => {
                depth += 1;
                open.get_or_insert(token.start);
            }
            Kind::Other(b')') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    ends.push(token.start);
                    return Some((open?, ends));
                }
            }
            Kind::Other(b',') if depth == 1 => ends.push(token.start),
            _ => {}
        }
    }
    None
}

/// The table of this database that an `ADD CONSTRAINT … FOREIGN KEY` leads to, as it is quoted; `None`: one of another database.
pub(crate) fn led_to<'a>(foreign_key: &'a str, database: &str) -> Option<&'a str> {
    let reference = references(foreign_key).into_iter().next()?;
    let is_here = reference.database.is_none_or(|named| named == crate::quote::ident(database));
    is_here.then_some(reference.table)
}

/// A foreign key, led to the table of that name in this database.
pub(crate) fn led_into(foreign_key: &str, database: &str) -> String {
    match references(foreign_key).into_iter().next() {
        None => foreign_key.to_owned(),
        Some(r) => {
            let (before, table) = (&foreign_key[..r.start], &foreign_key[r.table_start..]);
            format!("{before}{}.{table}", crate::quote::ident(database))
        }
    }
}

/// The clauses of an `ALTER TABLE`.
pub(crate) fn clauses(alter: &str) -> Vec<&str> {
    let (mut depth, mut from, mut out) = (0usize, None, Vec::new());
    for token in Tokens::new(alter) {
        match token.kind {
            Kind::Other(b'(') => depth += 1,
            Kind::Other(b')') => depth = depth.saturating_sub(1),
            Kind::Other(b',') if depth == 0 => {
                out.extend(from.and_then(|from| alter.get(from..token.start)));
                from = Some(token.end);
            }
            // The name of the table, or what is after its point.
            Kind::Name if from.is_none() && alter.as_bytes().get(token.end) != Some(&b'.') => {
                from = Some(token.end);
            }
            _ => {}
        }
    }
    out.extend(from.and_then(|from| alter.get(from..)));
    out.into_iter().map(str::trim).filter(|clause| !clause.is_empty()).collect()
}

/// The name in an `ADD CONSTRAINT`, as it is quoted.
pub(crate) fn constraint_name(clause: &str) -> Option<&str> {
    first_name(clause.strip_prefix("ADD CONSTRAINT ")?)
}

/// The name in a `CREATE … TRIGGER`, without quotes.
pub(crate) fn trigger_name(create: &str) -> Option<String> {
    let tokens = tokens_without_blanks(create);
    let text = |t: &Token| create.get(t.start..t.end).unwrap_or_default();
    let at = tokens.iter().position(|t| t.kind == Kind::Word && text(t) == "TRIGGER")?;
    let name = tokens.get(at + 1).filter(|t| t.kind == Kind::Name)?;
    Some(crate::quote::unquoted(text(name)))
}

/// The database, if it is named, and the table that an `ADD CONSTRAINT … FOREIGN KEY` leads to, as they are quoted.
pub(crate) fn leads_to(foreign_key: &str) -> Option<(Option<&str>, &str)> {
    references(foreign_key).into_iter().next().map(|r| (r.database, r.table))
}

/// What a foreign key leads to.
struct Reference<'a> {
    database: Option<&'a str>,
    table: &'a str,
    start: usize,
    table_start: usize,
}

fn references(sql: &str) -> Vec<Reference<'_>> {
    let tokens = tokens_without_blanks(sql);
    let text = |t: &Token| sql.get(t.start..t.end).unwrap_or_default();
    let after = tokens.iter().enumerate().filter(|(_, t)| t.kind == Kind::Word && text(t) == "REFERENCES");
    let reference = |at: usize| {
        let first = tokens.get(at + 1).filter(|t| t.kind == Kind::Name)?;
        let qualified = tokens.get(at + 2).is_some_and(|t| t.kind == Kind::Other(b'.'));
        let table = if qualified { tokens.get(at + 3)? } else { first };
        Some(Reference {
            database: qualified.then(|| text(first)),
            table: text(table),
            start: first.start,
            table_start: table.start,
        })
    };
    after.filter_map(|(at, _)| reference(at)).collect()
}

/// Whether a view, as servers print it to who uses its database, reads this table or view.
pub(crate) fn reads_table(view: &str, database: &str, table: &str) -> bool {
    let (database, table) = (crate::quote::ident(database), crate::quote::ident(table));
    let tokens = tokens_without_blanks(view);
    let text = |at: usize| tokens.get(at).and_then(|t| view.get(t.start..t.end)).unwrap_or_default();
    let names = tokens.iter().enumerate().filter(|(at, t)| t.kind == Kind::Name && text(*at) == table);
    names.into_iter().any(|(at, _)| {
        // Before a point it is what a column is of.
        if text(at + 1) == "." || at == 0 {
            return false;
        }
        match text(at - 1) {
            "(" | "," => true,
            "." => at >= 2 && text(at - 2) == database,
            word => ["from", "join", "straight_join"].iter().any(|w| word.eq_ignore_ascii_case(w)),
        }
    })
}

fn tokens_without_blanks(sql: &str) -> Vec<Token> {
    Tokens::new(sql).filter(|t| !matches!(t.kind, Kind::Other(b) if b.is_ascii_whitespace())).collect()
}

/// A `CREATE USER` without its default roles, and these: they must be there before they can be anybody's.
pub(crate) fn without_default_role(create: &str) -> Option<(String, String)> {
    let words: Vec<(usize, usize)> =
        Tokens::new(create).filter(|t| t.kind == Kind::Word).map(|t| (t.start, t.end)).collect();
    let is = |at: &(usize, usize), word: &str| create.get(at.0..at.1) == Some(word);
    let at = words.windows(2).position(|w| is(&w[0], "DEFAULT") && is(&w[1], "ROLE"))?;
    let (start, from) = (words[at].0, words[at + 1].1);
    // Names of roles are quoted: the next word begins something else.
    let end = words.get(at + 2).map_or(create.len(), |w| w.0);
    let roles = create.get(from..end)?.trim().to_owned();
    Some((format!("{}{}", create.get(..start)?, create.get(end..)?).trim_end().to_owned(), roles))
}

/// Whether the server prints names of this database in the statement, outside of texts.
pub(crate) fn names_database(sql: &str, database: &str) -> bool {
    qualifiers(sql, database).next().is_some()
}

/// Another database in place of `from`, wherever the statement names it before a point.
pub(crate) fn requalified(sql: &str, from: &str, to: &str) -> String {
    replaced(sql, from, &format!("{}.", crate::quote::ident(to)))
}

/// Without the name of this database before a point.
pub(crate) fn unqualified(sql: &str, database: &str) -> String {
    replaced(sql, database, "")
}

fn replaced(sql: &str, database: &str, with: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut from = 0;
    for (start, end) in qualifiers(sql, database) {
        out.push_str(&sql[from..start]);
        out.push_str(with);
        from = end;
    }
    out.push_str(&sql[from..]);
    out
}

/// Where `` `database`. `` stands.
fn qualifiers<'a>(sql: &'a str, database: &str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let name = crate::quote::ident(database);
    Tokens::new(sql).filter_map(move |t| {
        let is = t.kind == Kind::Name && sql.get(t.start..t.end) == Some(&*name);
        (is && sql.as_bytes().get(t.end) == Some(&b'.')).then_some((t.start, t.end + 1))
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Between backquotes.
    Name,
    /// A text.
    Text,
    /// Letters, digits and `_`.
    Word,
    /// One other byte.
    Other(u8),
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// Tokens of a statement in which a backslash escapes and `"` quotes a text. Comments are not told apart: servers print what
/// matters inside of them.
struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a str) -> Self {
        Tokens { sql: sql.as_bytes(), at: 0 }
    }

    fn quoted(&self, quote: u8) -> usize {
        let mut i = self.at + 1;
        while let Some(b) = self.sql.get(i) {
            match *b {
                b'\\' if quote != b'`' => i += 1,
                b if b == quote && self.sql.get(i + 1) == Some(&quote) => i += 1,
                b if b == quote => return i + 1,
                _ => {}
            }
            i += 1;
        }
        self.sql.len()
    }
}

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let start = self.at;
        let b = *self.sql.get(start)?;
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        let (kind, end) = match b {
            b'`' => (Kind::Name, self.quoted(b)),
            b'\'' | b'"' => (Kind::Text, self.quoted(b)),
            b if word(&b) => {
                let length =
                    self.sql[start..].iter().position(|b| !word(b)).unwrap_or(self.sql.len() - start);
                (Kind::Word, start + length)
            }
            b => (Kind::Other(b), start + 1),
        };
        self.at = end.min(self.sql.len());
        Some(Token { kind, start, end: self.at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secondary_and_foreign_keys_are_parted_from_the_table() {
        let create = "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT 'a, (KEY `x',\n  `a` decimal(10,2) DEFAULT NULL,\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`a`),\n  KEY `k` ((lower(`a`))),\n  CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `o` (`id`),\n  CONSTRAINT `c` CHECK (`a` > 0)\n) ENGINE=InnoDB COMMENT=')'";
        let split = split_table(create, true);
        assert_eq!(
            split.table,
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT 'a, (KEY `x',\n  `a` decimal(10,2) DEFAULT NULL,\n  PRIMARY KEY (`id`),\n  CONSTRAINT `c` CHECK (`a` > 0)\n) ENGINE=InnoDB COMMENT=')'"
        );
        assert_eq!(split.keys, ["ADD UNIQUE KEY `u` (`a`)", "ADD KEY `k` ((lower(`a`)))"]);
        assert_eq!(split.foreign_keys, ["ADD CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `o` (`id`)"]);
    }

    #[test]
    fn keys_stay_where_the_table_needs_them() {
        for create in [
            "CREATE TABLE `t` (\n  `a` int,\n  `n` int AUTO_INCREMENT,\n  PRIMARY KEY (`a`,`n`),\n  KEY `n` (`n`)\n) ENGINE=InnoDB",
            "CREATE TABLE `t` (\n  `a` int NOT NULL,\n  UNIQUE KEY `a` (`a`)\n) ENGINE=InnoDB",
        ] {
            assert_eq!(split_table(create, true).table, create);
        }
        let with_key =
            "CREATE TABLE `t` (\n  `a` int,\n  PRIMARY KEY (`a`),\n  KEY `b` (`a`)\n) ENGINE=MyISAM";
        assert_eq!(split_table(with_key, false).table, with_key);
        assert_eq!(split_table(with_key, true).keys.len(), 1);
    }

    #[test]
    fn what_depends_on_a_table_is_found_and_nothing_else() {
        for (view, reads) in [
            ("CREATE VIEW `v` AS select `logs`.`a` AS `a` from `logs`", true),
            ("select 1 AS `x` from (`app`.`t` `l` join `app`.`logs` on(1))", true),
            ("select 1 AS `x` from (`t` join `logs` `l` on(1))", true),
            ("select `t`.`logs` AS `logs`,'from `logs`' AS `b` from `t`", false),
            ("select `logs`.`a` AS `a` from `other`.`logs`", false),
            ("select `logs`.`a` AS `a` from `t` `logs`", false),
        ] {
            assert_eq!(reads_table(view, "app", "logs"), reads, "{view}");
        }
        let key = "ADD CONSTRAINT `f` FOREIGN KEY (`a`) REFERENCES `o` (`id`) ON DELETE CASCADE";
        assert_eq!(led_to(key, "app"), Some("`o`"));
        assert_eq!(led_to(&key.replace("`o`", "`app`.`o`"), "app"), Some("`o`"));
        assert_eq!(led_to(&key.replace("`o`", "`other`.`o`"), "app"), None);
    }

    #[test]
    fn foreign_keys_are_parted_and_led_elsewhere() {
        let alter = "ALTER TABLE `t` ADD CONSTRAINT `REFERENCES` FOREIGN KEY (`a`,`,`) REFERENCES `o` (`o`,`p`), ADD CONSTRAINT `b``` FOREIGN KEY (`b`) REFERENCES `x`.`n` (`id`) ON DELETE SET NULL";
        let [first, second] = clauses(alter)[..] else { panic!("{:?}", clauses(alter)) };
        assert_eq!(clauses(&alter.replace("`t`", "`app`.`t`")), [first, second]);
        assert_eq!((leads_to(first), leads_to(second)), (Some((None, "`o`")), Some((Some("`x`"), "`n`"))));
        assert_eq!((constraint_name(first), constraint_name(second)), (Some("`REFERENCES`"), Some("`b```")));
        assert_eq!(led_into(first, "app"), first.replace("`o` (", "`app`.`o` ("));
        assert_eq!(led_into(second, "y"), second.replace("`x`", "`y`"));
        assert_eq!(led_into("ADD KEY `k` (`a`)", "y"), "ADD KEY `k` (`a`)");
        assert!(clauses("ALTER TABLE").is_empty() && leads_to("REFERENCES").is_none());
    }

    #[test]
    fn default_roles_are_parted_from_their_user() {
        let create = "CREATE USER `u`@`%` IDENTIFIED WITH 'p' AS 0x24 DEFAULT ROLE `a`@`%`,`DEFAULT ROLE`@`%` REQUIRE NONE PASSWORD EXPIRE DEFAULT ATTRIBUTE '{\"c\": \"DEFAULT ROLE x\"}'";
        let (user, roles) = without_default_role(create).unwrap();
        assert_eq!(roles, "`a`@`%`,`DEFAULT ROLE`@`%`");
        assert_eq!(
            user,
            "CREATE USER `u`@`%` IDENTIFIED WITH 'p' AS 0x24 REQUIRE NONE PASSWORD EXPIRE DEFAULT ATTRIBUTE '{\"c\": \"DEFAULT ROLE x\"}'"
        );
        assert_eq!(without_default_role("CREATE USER `u`@`%` PASSWORD EXPIRE DEFAULT"), None);
    }

    #[test]
    fn a_database_is_renamed_in_names_and_not_in_texts() {
        let sql = "select `app`.`t`.`a`,'`app`.x',\"`app`.\" from `app`.`t` join `app`";
        assert_eq!(
            requalified(sql, "app", "o`r"),
            "select `o``r`.`t`.`a`,'`app`.x',\"`app`.\" from `o``r`.`t` join `app`"
        );
        assert_eq!(unqualified("default nextval(`app`.`s`)", "app"), "default nextval(`s`)");
        assert!(!names_database("select '`app`.'", "app"));
    }

    #[test]
    fn the_name_of_a_trigger_is_read_from_its_statement() {
        let create =
            "CREATE DEFINER=`r`@`%` TRIGGER `a``b` BEFORE INSERT ON `t` FOR EACH ROW SET @x = ' TRIGGER `n`'";
        assert_eq!(trigger_name(create).as_deref(), Some("a`b"));
    }
}
