use super::*;

fn backup(id: &str, series: &str, created: &str, state: State) -> BackupSummary {
    BackupSummary {
        id: format!("{id:0<26}").parse().unwrap(),
        module: series.split('@').next().unwrap().to_owned(),
        series: Series(series.to_owned()),
        created: created.parse().unwrap(),
        state,
        location: format!("{id}.tar.zst"),
        stored_bytes: 0,
        data_bytes: 0,
        entries: 0,
        components: vec![],
        verified: None,
        damaged: None,
        tags: vec![],
        note: None,
        encrypted: false,
        was: None,
    }
}

fn pick(list: &[BackupSummary], which: &str, module: Option<&str>) -> Result<String> {
    pick_in(list, which, Scope::of_module(module))
}

fn pick_in(list: &[BackupSummary], which: &str, scope: Scope<'_>) -> Result<String> {
    let zone = TimeZone::fixed(jiff::tz::offset(2));
    choose(list, &which.parse().unwrap(), scope, &zone).map(|b| b.location.replace(".tar.zst", ""))
}

/// What is noted when this one is chosen.
fn told(list: &[BackupSummary], which: &str) -> String {
    let (zone, cx) = (TimeZone::fixed(jiff::tz::offset(2)), Context::default());
    choose_and_tell(list, &which.parse().unwrap(), Scope::default(), &zone, &cx).unwrap();
    cx.notes().list.into_iter().map(|n| n.text).collect::<Vec<_>>().join("\n")
}

fn three() -> Vec<BackupSummary> {
    vec![
        backup("a1", "app@h", "2025-07-16T10:00:00Z", State::Complete),
        backup("a2", "app@h", "2025-07-17T21:59:59Z", State::Complete),
        backup("b3", "app@h", "2025-07-17T22:00:00Z", State::Complete),
        backup("c4", "app@h", "2025-07-19T10:00:00Z", State::Partial),
        backup("d5", "app@h", "2025-07-20T10:00:00Z", State::Incomplete),
    ]
}

#[test]
fn latest_is_the_newest_complete_one_never_a_partial_one() {
    let list = three();
    assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
    assert_eq!(pick(&list, "latest~1", None).unwrap(), "a2");
    let e = pick(&list, "latest~3", None).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.message().starts_with("there are only 3 complete backups; passed over: c4"), "{e}");
    assert_eq!(pick(&list[3..], "latest", None).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_newer_one_that_is_not_whole_is_passed_over_and_told() {
    let mut list = three();
    // The last one is incomplete, and of a run of another series.
    let text = told(&list, "latest");
    assert!(
        text.contains(&format!("a newer one, c4{} of 2025-07-19 12:00:00, is partial", "0".repeat(24))),
        "{text}"
    );
    list[4].location = format!(".app.tar.zst.{}.{}.incomplete", list[0].series.short(), list[4].id);
    assert!(told(&list, "latest").contains("is incomplete"));
    list[4] = BackupSummary { series: Series::default(), state: State::Unknown, ..list[4].clone() };
    assert!(told(&list, "2025-07-20").contains("is unknown"));
    assert!(told(&list, "2025-07-19").contains("is partial"));
    for silent in ["2025-07-18", "c4.tar.zst"] {
        assert_eq!(told(&list, silent), "", "{silent}");
    }
    list[2].damaged = Some(Timestamp::UNIX_EPOCH);
    assert!(told(&list, "2025-07-18").contains("is damaged"));
    list.truncate(4);
    list[3].series = Series("other@h".to_owned());
    list[2].damaged = None;
    list[1].state = State::Unproven;
    assert_eq!(told(&list, "latest"), "");
}

#[test]
fn what_was_found_damaged_is_chosen_only_by_its_name() {
    let mut list = three();
    list[2].damaged = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(pick(&list, "latest", None).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(pick(&list, "a200", None).unwrap(), "a2");
    assert_eq!(pick(&list, "2025-07-18", None).unwrap(), "a2");
    assert_eq!(pick(&list, "b3.tar.zst", None).unwrap(), "b3");
    let mut two = three()[1..3].to_vec();
    two[0].damaged = Some(Timestamp::UNIX_EPOCH);
    let e = pick(&two, "latest~1", None).unwrap_err();
    let a2 = format!("a2{}", "0".repeat(24));
    assert_eq!(
        e.message(),
        format!("there is only one complete backup; passed over: {a2}, which is damaged")
    );
    // Where there is no other, that is what is told.
    let e = pick(&list[2..], "latest", None).unwrap_err();
    assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("b3.tar.zst"), "{e}");
}

#[test]
fn what_is_missing_is_never_the_latest_and_the_one_before_it_is_not_silently_either() {
    let mut list = three();
    list[2].state = State::Missing;
    let e = pick(&list, "latest", None).unwrap_err();
    assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("b3.tar.zst"), "{e}");
    assert_eq!(pick(&list, "2025-07-18", None).unwrap(), "a2");
    // Whoever removes it names it.
    assert_eq!(pick(&list, "b300", None).unwrap(), "b3");
    list[2].state = State::Complete;
    list[0].state = State::Missing;
    assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
}

#[test]
fn a_missing_one_of_which_nothing_is_known_may_have_been_the_latest_of_any_series() {
    let mut list = three();
    // Without its sidecar neither its module nor its series is known.
    list[3] =
        BackupSummary { module: String::new(), ..backup("c4", "", "2025-07-19T10:00:00Z", State::Missing) };
    list[3].series = Series::default();
    for module in [None, Some("app")] {
        let e = pick(&list, "latest", module).unwrap_err();
        assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("c4.tar.zst"), "{e}");
    }
    list[3].created = list[1].created;
    assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
}

#[test]
fn what_was_never_the_latest_is_not_in_its_way_when_it_is_missing_or_damaged() {
    for was in [State::Partial, State::Unproven] {
        let mut list = three();
        list[3].damaged = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
        list[3] = BackupSummary { state: State::Missing, was: Some(was), damaged: None, ..list[3].clone() };
        assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
        list[3].was = Some(State::Complete);
        assert_eq!(pick(&list, "latest", None).unwrap_err().kind(), ErrorKind::Damaged);
    }
}

#[test]
fn a_date_reaches_to_the_end_of_its_local_day() {
    let list = three();
    assert_eq!(pick(&list, "2025-07-17", None).unwrap(), "a2");
    assert_eq!(pick(&list, "2025-07-18", None).unwrap(), "b3");
    assert_eq!(pick(&list, "2025-07-15", None).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_name_is_an_id_its_unique_beginning_or_a_file() {
    let list = three();
    assert_eq!(pick(&list, "b300", None).unwrap(), "b3");
    assert_eq!(pick(&list, "c4.tar.zst", None).unwrap(), "c4");
    assert_eq!(pick(&list, "d500", None).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(pick(&list, "zzzz", None).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_beginning_that_is_not_unique_or_too_short_is_an_error_even_if_there_is_only_one_backup() {
    let mut list = three();
    for b in &mut list[..2] {
        b.id = format!("abcd{}", b.id)[..26].parse().unwrap();
    }
    let e = pick(&list, "abcd", None).unwrap_err();
    assert!(e.kind() == ErrorKind::Usage && e.message().contains("several"), "{e}");
    for short in ["", "b", "b30"] {
        let e = pick(&list[2..3], short, None).unwrap_err();
        assert!(e.kind() == ErrorKind::Usage && e.message().contains("too short"), "{e}");
    }
}

#[test]
fn several_series_and_latest_is_an_error_that_lists_them() {
    let mut list = three();
    list.push(backup("e6", "other@h:/y", "2025-07-20T10:00:00Z", State::Complete));
    let e = pick(&list, "latest", None).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    assert!(e.message().contains("app@h (newest: b3") && e.message().contains("other@h:/y"), "{e}");
    assert_eq!(pick(&list, "latest", Some("other")).unwrap(), "e6");
    assert_eq!(pick(&list, "a100", None).unwrap(), "a1");
}

fn with_parts() -> Vec<BackupSummary> {
    let part = |id: &str, only: &str, created: &str, state: State| BackupSummary {
        components: only.split('+').map(str::to_owned).collect(),
        ..backup(id, &format!("app@h#only={only}"), created, state)
    };
    vec![
        backup("a1", "app@h", "2025-07-16T10:00:00Z", State::Complete),
        part("p2", "data", "2025-07-17T10:00:00Z", State::Complete),
        backup("b3", "app@h", "2025-07-18T10:00:00Z", State::Complete),
        part("p4", "data", "2025-07-19T10:00:00Z", State::Complete),
        part("p5", "data+etc", "2025-07-20T10:00:00Z", State::Complete),
        part("p6", "etc", "2025-07-21T10:00:00Z", State::Partial),
    ]
}

#[test]
fn latest_and_dates_mean_the_whole_set_and_parts_only_where_no_more_is_wanted() {
    let list = with_parts();
    let only = |which: &str, components: &[&str]| pick_in(&list, which, Scope { module: None, components });
    for module in [None, Some("app")] {
        assert_eq!(pick(&list, "latest", module).unwrap(), "b3");
        assert_eq!(pick(&list, "latest~1", module).unwrap(), "a1");
        assert_eq!(pick(&list, "2025-07-17", module).unwrap(), "a1");
        assert_eq!(pick(&list, "2025-07-21", module).unwrap(), "b3");
    }
    assert_eq!(pick(&list, "p400", None).unwrap(), "p4");
    assert_eq!(only("latest", &["data"]).unwrap(), "p5");
    assert_eq!(only("latest~1", &["data"]).unwrap(), "p4");
    assert_eq!(only("2025-07-17", &["data"]).unwrap(), "p2");
    assert_eq!(only("2025-07-17", &["etc"]).unwrap(), "a1");
    assert_eq!(only("latest", &["data", "db"]).unwrap(), "b3");
    // What is passed over is told, and is no part that nobody would have chosen.
    let text = told(&list, "latest");
    let p5 = format!("a newer one, p5{} of 2025-07-20 12:00:00, holds only data, etc and", "0".repeat(24));
    assert!(text.starts_with(&p5) && !text.contains('\n'), "{text}");
    assert!(told(&list, "2025-07-19").contains("p4") && told(&list, "2025-07-18").is_empty());
    let e = pick(&list, "latest~2", None).unwrap_err();
    assert!(e.message().contains("only 2 complete backups; passed over: p5"), "{e}");
}

#[test]
fn a_part_is_the_latest_only_where_there_is_nothing_else() {
    let list = with_parts();
    assert_eq!(pick(&list[3..4], "latest", None).unwrap(), "p4");
    let e = pick(&list[3..], "latest", None).unwrap_err();
    assert!(e.kind() == ErrorKind::Usage && e.message().contains("app@h#only=data+etc (newest: p5"), "{e}");
    let wants = |components: &[&str]| pick_in(&list[3..], "latest", Scope { module: None, components });
    assert_eq!(wants(&["etc"]).unwrap(), "p5");
    assert_eq!(wants(&["db"]).unwrap_err().kind(), ErrorKind::NotFound);
    // What there is of the whole set is not sound: its place is not taken by a part.
    let mut list = list;
    list.remove(0);
    list[1].state = State::Partial;
    let e = pick(&list, "latest", None).unwrap_err();
    assert!(e.kind() == ErrorKind::NotFound && e.message().contains("a part of the module"), "{e}");
    list[1].state = State::Complete;
    list[1].damaged = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(pick(&list, "latest", None).unwrap_err().kind(), ErrorKind::Damaged);
    // A damaged part is in the way only of who wants it.
    list[1].damaged = None;
    list[3].damaged = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
    let e = pick_in(&list, "latest", Scope { module: None, components: &["data"] }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Damaged);
}

#[test]
fn a_series_whose_path_ends_like_that_of_a_part_is_none() {
    let mut list = vec![
        backup("a1", "data@h:/data", "2025-07-16T10:00:00Z", State::Complete),
        backup("b2", "data@h:/data#only=x", "2025-07-17T10:00:00Z", State::Complete),
    ];
    list[1].components = vec!["data".to_owned()];
    assert_eq!(pick(&list, "latest", None).unwrap_err().kind(), ErrorKind::Usage);
}
