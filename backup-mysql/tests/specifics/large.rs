//! Tables that are large enough to be read in ranges.

use super::*;

/// Moves amounts between rows, puts rows in and takes others away, until it is told to stop.
async fn disturb(server: Arc<Mysql>, name: String, stop: Arc<AtomicBool>) {
    let mut c = conn(&server).await;
    let mut n = 0;
    while !stop.load(Relaxed) {
        n += 1;
        let (a, b) = (n * 7 % 20_000, n * 13 % 20_000);
        run(
            &mut c,
            &format!(
                "START TRANSACTION;; UPDATE `{name}`.large SET m = m - {n} WHERE id = 3 * {a};; \
                 UPDATE `{name}`.large SET m = m + {n} WHERE id = 3 * {b};; INSERT INTO `{name}`.large VALUES (3 * {n} + 1, 5, 'late');; \
                 DELETE FROM `{name}`.large WHERE id = 3 * {n} - 2;; COMMIT"
            ),
        )
        .await;
    }
}

#[test]
fn a_large_table_is_read_by_several_sessions_and_every_row_once_in_the_order_of_its_key() {
    in_time("a_large_table_is_read_by_several_sessions_and_every_row_once_in_the_order_of_its_key", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            read_large(flavor).await;
        }
    });
}

async fn read_large(flavor: Flavor) {
    let (server, mut c) = any_server(flavor).await;
    // Numbers with gaps, one far away, and texts that need escapes.
    let name = database(
        &mut c,
        "large",
        "CREATE TABLE large (id bigint unsigned, m bigint, t text, PRIMARY KEY (id, m), KEY (m));; \
         CREATE TABLE small (id int PRIMARY KEY);; INSERT INTO small VALUES (1);; \
         INSERT INTO large VALUES (0, 100, REPEAT('some\ttext\\n', 120))",
    )
    .await;
    let mut rows = 1;
    while rows < 20_000 {
        let more = rows.min(20_000 - rows);
        run(
            &mut c,
            &format!("INSERT INTO large SELECT id + 3 * {rows}, m, t FROM large WHERE id < 3 * {more}"),
        )
        .await;
        rows += more;
    }
    run(&mut c, "INSERT INTO large VALUES (18446744073709551615, 100, 'the last');; ANALYZE TABLE large")
        .await;
    run(
        &mut c,
        "SET GLOBAL log_output = 'TABLE';; TRUNCATE TABLE mysql.general_log;; SET GLOBAL general_log = ON",
    )
    .await;
    let (cx, stop) = (Context::new(64 << 20, 3), Arc::new(AtomicBool::new(false)));
    let view = source(&config(&server, &name)).connect(&cx).await.must("connect").fix(&cx).await.must("fix");
    let writer = tokio::spawn(disturb(server.clone(), name.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sink = ContentsSink::new();
    let facts = view.pour(Arc::new(sink.clone()), &cx).await.must("pour");
    stop.store(true, Relaxed);
    writer.await.must("write");
    run(&mut c, "SET GLOBAL general_log = OFF;; SET GLOBAL log_output = DEFAULT").await;
    let ranges: Vec<(u32, String)> = c
        .query("SELECT thread_id, CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE argument LIKE 'SELECT /*!40001%large%'")
        .await
        .must("the log");
    let readers: std::collections::BTreeSet<u32> = ranges.iter().map(|(session, _)| *session).collect();
    assert!(readers.len() > 1, "one session read all of it: {ranges:?}");
    let ahead = cx.budget.peak();
    assert!(ahead > 0 && ahead <= (64 << 20) / 8 && cx.budget.in_flight() == 0, "{ahead} bytes were held");
    assert_eq!(rows_of(&facts, &name, "large"), 20_001);
    let contents = sink.take();
    let held = contents.get(format!("{name}.large/data.tsv").as_bytes()).must("the rows");
    let text = String::from_utf8(held.chunks.concat()).must("UTF-8");
    let mut last = None;
    let mut sum = 0;
    for line in text.lines() {
        let mut values = line.split('\t');
        let id: u64 = values.next().must("an id").parse().must("a number");
        sum += values.next().must("an amount").parse::<i64>().must("a number");
        assert!(last < Some(id) && values.next().is_some_and(|t| t != "late"), "{id} after {last:?}");
        last = Some(id);
    }
    assert_eq!((text.lines().count(), sum, last), (20_001, 2_000_100, Some(u64::MAX)), "{flavor:?}");
}

#[test]
fn a_large_table_whose_key_is_no_number_and_one_of_a_single_session_come_back_whole() {
    in_time("a_large_table_whose_key_is_no_number_and_one_of_a_single_session_come_back_whole", async {
        let (server, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(
            &mut c,
            "keyed_by_text",
            "CREATE TABLE words (w varchar(40) PRIMARY KEY, t varchar(2000));; CREATE TABLE below (id int PRIMARY KEY, t varchar(2000));; \
             INSERT INTO words SELECT MD5(seq), REPEAT('x', 1900) FROM seq_1_to_10000;; \
             INSERT INTO below SELECT 5000 - CAST(seq AS SIGNED) * 2, REPEAT('y', 1900) FROM seq_1_to_10000;; ANALYZE TABLE words, below",
        )
        .await;
        // Also with too little memory to read anything ahead.
        for (memory, tasks) in [(64 << 20, 1), (64 << 20, 4), (4 << 20, 4)] {
            let (cx, to) = (Context::new(memory, tasks), fresh("words_again"));
            let from = config(&server, &name);
            restore(&from, &config(&server, &to), &cx).await.must("restore").settle(&cx).await.must("settle");
            let sums = async |c: &mut Conn, name: &str| {
                run(c, &format!("USE `{name}`")).await;
                let row: Option<(String, String)> = c.query_first("CHECKSUM TABLE words").await.must("sum");
                let other: Option<(String, String)> = c.query_first("CHECKSUM TABLE below").await.must("sum");
                (row.must("a row").1, other.must("a row").1)
            };
            assert_eq!(sums(&mut c, &name).await, sums(&mut c, &to).await);
            run(&mut c, &format!("USE mysql;; DROP DATABASE `{to}`")).await;
        }
    });
}
