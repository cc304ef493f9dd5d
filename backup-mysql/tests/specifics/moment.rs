//! One moment for all tables, under load and while locks are waited for.

use super::*;

#[test]
fn definitions_stay_as_they_are_while_the_rows_are_read() {
    in_time("definitions_stay_as_they_are_while_the_rows_are_read", async {
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(
                &mut c,
                "still",
                "CREATE TABLE t (id int PRIMARY KEY);; INSERT INTO t VALUES (1), (2)",
            )
            .await;
            let (cx, sink) = (Context::default(), Arc::new(ContentsSink::new()));
            let view =
                source(&config(&server, &name)).connect(&cx).await.must("connect").fix(&cx).await.must("fix");
            // Before the change of the definition: behind one that waits, writers wait too.
            run(&mut c, "INSERT INTO t VALUES (3)").await;
            let mut other = conn(&server).await;
            let sql = format!("ALTER TABLE `{name}`.t ADD COLUMN x int");
            let altering = tokio::spawn(async move { other.query_drop(sql).await });
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(!altering.is_finished(), "a table of the snapshot was changed");
            let facts = view.pour(sink.clone(), &cx).await.must("pour");
            assert_eq!(rows_of(&facts, &name, "t"), 2, "a row came in after the moment");
            tokio::time::timeout(Duration::from_secs(10), altering)
                .await
                .must("the lock is given back")
                .must("task")
                .must("alter");
        }
    });
}

const LEDGER: &str = "CREATE TABLE a (id int PRIMARY KEY, m bigint);; CREATE TABLE b (id int PRIMARY KEY, m bigint);; \
    CREATE TABLE wide (id int PRIMARY KEY, t text)";

async fn ledger_holds(flavor: Flavor, grants: &[&str]) {
    let (server, mut c) = any_server(flavor).await;
    let name = database(&mut c, "ledger", LEDGER).await;
    for id in 0..50 {
        run(&mut c, &format!("INSERT INTO a VALUES ({id}, 1000);; INSERT INTO b VALUES ({id}, 1000);; INSERT INTO wide VALUES ({id}, REPEAT('x', 20000))")).await;
    }
    let grants: Vec<String> = grants.iter().map(|g| g.replace("DB", &name)).collect();
    let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
    let from = as_user(&server, &mut c, &name, &grants).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..2).map(|_| tokio::spawn(write_ledger(server.clone(), name.clone(), stop.clone()))).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        let cx = Context::new(64 << 20, 4);
        let data = captured(&from, &cx).await.must("pour under load");
        let to = fresh("settled");
        let mut restored = restore_data(&data, &config(&server, &to), &cx).await.must("restore");
        restored.settle(&cx).await.must("settle");
        let sums = format!("SELECT (SELECT SUM(m) FROM `{to}`.a) + (SELECT SUM(m) FROM `{to}`.b)");
        assert_eq!(value(&mut c, &sums).await, "100000", "{flavor:?} {grants:?}: not one moment");
        run(&mut c, &format!("DROP DATABASE `{to}`")).await;
    }
    stop.store(true, Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Moves money between two tables. Two writers meet in rows; who loses a deadlock goes on.
async fn write_ledger(server: Arc<Mysql>, name: String, stop: Arc<AtomicBool>) {
    let mut c = conn(&server).await;
    let mut n: u64 = 0;
    while !stop.load(Relaxed) {
        n += 1;
        let id = n % 50;
        let moved = async {
            c.query_drop("START TRANSACTION").await?;
            c.query_drop(format!("UPDATE `{name}`.a SET m = m - {n} WHERE id = {id}")).await?;
            c.query_drop(format!("UPDATE `{name}`.b SET m = m + {n} WHERE id = {id}")).await?;
            c.query_drop("COMMIT").await
        };
        if moved.await.is_err() {
            let _ = c.query_drop("ROLLBACK").await;
        }
    }
}

#[test]
fn under_write_load_all_tables_are_of_one_moment_with_and_without_the_right_to_lock() {
    in_time("under_write_load_all_tables_are_of_one_moment_with_and_without_the_right_to_lock", async {
        let all = ["ALL ON *.*"];
        let reader = ["SELECT, SHOW VIEW, TRIGGER, EVENT ON `DB`.*"];
        ledger_holds(Flavor::Mariadb118, &all).await;
        ledger_holds(Flavor::Mariadb118, &reader).await;
        ledger_holds(Flavor::Mysql9, &all).await;
        ledger_holds(Flavor::Mysql9, &reader).await;
    });
}

/// A context whose waits are written down.
fn watching(seen: &Arc<Mutex<String>>) -> Context {
    let seen = seen.clone();
    Context::default().with_observer(Some(Arc::new(move |event: &Event| {
        if let Event::Waiting { reason } = event {
            seen.lock().unwrap().push_str(reason);
        }
    })))
}

#[test]
fn a_lock_that_is_not_had_in_time_is_an_error_and_nothing_stays_locked() {
    in_time("a_lock_that_is_not_had_in_time_is_an_error_and_nothing_stays_locked", async {
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            let server = services::own_mysql(flavor, &[]).await;
            let mut c = conn(&server).await;
            let name = database(&mut c, "locked", "CREATE TABLE t (id int PRIMARY KEY)").await;
            run(&mut c, "LOCK TABLES t WRITE").await;
            let mut from = config(&server, &name);
            from["lock_timeout_seconds"] = json!(1);
            let seen = Arc::new(Mutex::new(String::new()));
            let cx = watching(&seen);
            let ready = source(&from).connect(&cx).await.must("connect");
            let error = ready.fix(&cx).await.err().must("the lock is held");
            assert!(error.hint_text().is_some(), "{error}");
            assert!(seen.lock().unwrap().contains("LOCK TABLES"), "{seen:?}");
            run(&mut c, "INSERT INTO t VALUES (1);; UNLOCK TABLES").await;
            let mut other = conn(&server).await;
            // Who is at work is named, while it is waited for and afterwards.
            let id = other.id().to_string();
            let slow = format!("UPDATE `{name}`.t SET id = id + SLEEP(300)");
            let working = tokio::spawn(async move {
                // It is ended before its time, which may be an error.
                let _ = other.query_drop(slow).await;
                other
            });
            let at_work = format!(
                "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {id} AND STATE = 'User sleep'"
            );
            while value(&mut c, &at_work).await == "0" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            seen.lock().unwrap().clear();
            let ready = source(&from).connect(&cx).await.must("connect");
            let error = ready.fix(&cx).await.err().must("the lock is held");
            let named = format!("session {id} of root");
            assert!(error.hint_text().unwrap_or_default().contains(&named), "{:?}", error.hint_text());
            assert!(seen.lock().unwrap().contains(&named), "{seen:?}");
            run(&mut c, &format!("KILL QUERY {id}")).await;
            let mut other = working.await.must("work");
            run(
                &mut other,
                &format!("INSERT INTO `{name}`.t VALUES (20);; CREATE TABLE `{name}`.u (id int)"),
            )
            .await;
        }
    });
}

#[test]
fn writers_that_wait_for_the_lock_and_for_each_other_do_not_make_the_backup_fail() {
    in_time("writers_that_wait_for_the_lock_and_for_each_other_do_not_make_the_backup_fail", async {
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(
                &mut c,
                "circle",
                "CREATE TABLE a (id int PRIMARY KEY, m int);; CREATE TABLE b (id int PRIMARY KEY, m int);; \
                 INSERT INTO a VALUES (1, 0);; INSERT INTO b VALUES (1, 0)",
            )
            .await;
            let (mut first, mut second) = (conn(&server).await, conn(&server).await);
            run(&mut first, &format!("START TRANSACTION;; UPDATE `{name}`.a SET m = 1")).await;
            // It waits for the row of the first, and the global lock waits for its statement.
            let sql = format!("UPDATE `{name}`.a SET m = m + 1");
            let waits = format!(
                "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {} AND LOWER(STATE) = 'updating'",
                second.id()
            );
            let waiting = tokio::spawn(async move { second.query_drop(sql).await });
            // From then on it cannot end before the first, and before that nothing would hold the global lock up.
            while value(&mut c, &waits).await == "0" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let seen = Arc::new(Mutex::new(String::new()));
            let cx = watching(&seen);
            let ready = source(&config(&server, &name)).connect(&cx).await.must("connect");
            let fixing = tokio::spawn(async move { ready.fix(&cx).await.map(drop) });
            while seen.lock().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Behind the global lock: the circle is closed.
            let sql = format!("UPDATE `{name}`.b SET m = 1;; COMMIT");
            let going_on = async { run(&mut first, &sql).await };
            tokio::time::timeout(Duration::from_secs(8), going_on).await.must("the application goes on");
            waiting.await.unwrap().must("the second goes on");
            fixing.await.unwrap().must("fix");
        }
    });
}
