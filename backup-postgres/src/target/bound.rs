//! What needs tables that change places with others, as the catalog has it. Sessions look things up with an empty search_path.

use super::part::Part;
use crate::{
    client::{ClientError, Row, Session},
    quote::{literal, qualified},
    server::Server,
};
use backup_core::Error;
use std::collections::BTreeMap;

/// Tables of a part that are there, as `"schema"."name"`, with their numbers in the catalog.
pub(super) type Surveyed = BTreeMap<String, u64>;

pub(super) async fn numbers(session: &mut Session, part: &Part) -> Result<Surveyed, ClientError> {
    let mut out = Surveyed::new();
    for (schema, table) in &part.tables {
        let name = qualified(schema, table);
        let sql = format!(
            "SELECT coalesce(pg_catalog.to_regclass({})::pg_catalog.oid, 0::pg_catalog.oid)",
            literal(&name)
        );
        let number = session.number(&sql).await?;
        if number != 0 {
            out.insert(name, number);
        }
    }
    Ok(out)
}

/// A list of numbers of tables.
pub(super) fn regclasses(tables: &[String]) -> String {
    let each: Vec<String> = tables
        .iter()
        .map(|table| format!("{}::pg_catalog.regclass::pg_catalog.oid", literal(table)))
        .collect();
    format!("ARRAY[{}]::pg_catalog.oid[]", each.join(", "))
}

/// So many fields of a row.
pub(super) fn fields<const N: usize>(row: Row) -> [Option<String>; N] {
    let mut row = row.into_iter();
    std::array::from_fn(|_| row.next().flatten())
}

/// The error of a lock that was not had, with those who hold one on these tables, or on what foreign keys bind to them. Not what they do:
/// their statements may hold what is nobody's business.
pub(super) async fn blocked(e: Error, server: &Server, tables: &[String]) -> Error {
    let (these, ours) = (existing(tables), literal(&server.endpoint.application));
    let sql = format!(
        "SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('process %s of %s (%s) has used %s since %s', a.pid, coalesce(a.usename, a.backend_type),
           coalesce(nullif(a.application_name, ''), 'no name'), l.relation::pg_catalog.regclass, coalesce(a.xact_start, a.query_start)::timestamptz(0)), '; ')
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
         WHERE l.granted AND l.locktype = 'relation' AND a.application_name <> {ours}
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
           AND (l.relation = ANY ({these}) OR l.relation IN (SELECT k.conrelid FROM pg_catalog.pg_constraint k WHERE k.confrelid = ANY ({these})))"
    );
    let who = async {
        let mut session = server.session().await.ok()?;
        let who = session.value(&sql).await.ok().flatten();
        session.close().await;
        who
    };
    match who.await {
        Some(who) => e.hint(format!("{who}: end it, or try again when it is over")),
        None => e.hint("a table is in use by a long transaction: try again when it is over"),
    }
}

/// A list of numbers of those tables that are there.
fn existing(tables: &[String]) -> String {
    let each: Vec<String> = tables
        .iter()
        .map(|table| format!("pg_catalog.to_regclass({})::pg_catalog.oid", literal(table)))
        .collect();
    format!("ARRAY[{}]::pg_catalog.oid[]", each.join(", "))
}

/// What leads to tables, or is bound to them, in a way that cannot be made anew: for people. A view that uses one of them is made anew;
/// one that uses only a type or a sequence of theirs is not.
pub(super) async fn bound(session: &mut Session, tables: &[String]) -> Result<Vec<String>, ClientError> {
    let these = regclasses(tables);
    let sql = format!(
        "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) FROM pg_catalog.pg_depend d
         LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid
         LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
         LEFT JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
         LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid
         LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
         LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid
         WHERE d.deptype = 'n'
           AND (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND (d.refobjid = ANY ({these}) OR d.refobjid IN
               (SELECT o.objid FROM pg_catalog.pg_depend o JOIN pg_catalog.pg_class s ON s.oid = o.objid AND s.relkind = 'S'
                WHERE o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  AND o.deptype IN ('a', 'i') AND o.refobjid = ANY ({these})))
             OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN
               (SELECT y.oid FROM pg_catalog.pg_type y JOIN pg_catalog.pg_type e ON y.oid = e.oid OR y.typelem = e.oid WHERE e.typrelid = ANY ({these})))
           AND NOT (k.oid IS NOT NULL AND (k.contype = 'f' OR k.conrelid = ANY ({these})))
           AND NOT (r.oid IS NOT NULL AND (r.ev_class = ANY ({these}) OR v.relkind = 'v' AND r.ev_type = '1' AND EXISTS
               (SELECT FROM pg_catalog.pg_depend u WHERE u.classid = d.classid AND u.objid = d.objid
                  AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND u.refobjid = ANY ({these}))))
           AND NOT coalesce(t.tgrelid = ANY ({these}), false) AND NOT coalesce(p.polrelid = ANY ({these}), false)
           AND NOT coalesce(a.adrelid = ANY ({these}), false)
           AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = ANY ({these}))
         UNION SELECT 'publication ' || b.pubname FROM pg_catalog.pg_publication_rel l JOIN pg_catalog.pg_publication b ON b.oid = l.prpubid WHERE l.prrelid = ANY ({these})
         UNION SELECT pg_catalog.pg_describe_object('pg_catalog.pg_subscription'::pg_catalog.regclass, l.srsubid, 0)
           FROM pg_catalog.pg_subscription_rel l WHERE l.srrelid = ANY ({these})
         UNION SELECT 'inheritance or partitions of ' || i.inhrelid::pg_catalog.regclass::text FROM pg_catalog.pg_inherits i
           WHERE (i.inhrelid = ANY ({these})) <> (i.inhparent = ANY ({these})) ORDER BY 1"
    );
    texts(session, &sql).await
}

/// Views and foreign keys that are made anew, but those of tables in `apart_from`: for people.
pub(super) async fn made_anew(
    session: &mut Session,
    tables: &[String],
    apart_from: &[String],
) -> Result<Vec<String>, ClientError> {
    let (these, apart) = (regclasses(tables), regclasses(apart_from));
    let sql = format!(
        "SELECT DISTINCT 'view ' || v.oid::pg_catalog.regclass::text FROM pg_catalog.pg_depend d
         JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
         JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
         WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ({these})
         UNION SELECT 'foreign key ' || k.conname || ' of ' || k.conrelid::pg_catalog.regclass::text FROM pg_catalog.pg_constraint k
         WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY ({these}) AND NOT k.conrelid = ANY ({apart}) ORDER BY 1"
    );
    texts(session, &sql).await
}

async fn texts(session: &mut Session, sql: &str) -> Result<Vec<String>, ClientError> {
    let rows = session.query(sql).await?;
    let texts = rows.into_iter().map(|row| fields::<1>(row).map(Option::unwrap_or_default));
    Ok(texts.map(|[text]| text).collect())
}
