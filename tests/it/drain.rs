use crate::workspace;
use tests::{
    digest,
    workspace::{run, start},
};

fn drained_by(signal: libc::c_int) {
    let workspace = workspace();
    workspace.sample_folder(400);
    let tokenize = |output: &str| workspace.tokenize_with_units_of(4, "images", output);
    run(&mut tokenize("undisturbed")).expect_code(0);
    let units = |output: &str| {
        if workspace.path(output).exists() { digest::finished_units(&workspace.files(output)) } else { 0 }
    };
    let mut running = start(&mut tokenize("out"));
    assert!(running.wait_until(|| units("out") >= 3), "the run ended before its third unit");
    running.signal(signal);
    running.finish().expect_code(143);
    let done = units("out");
    assert!((3..units("undisturbed")).contains(&done), "{done} units");
    assert!(!digest::is_finished(&workspace.files("out")));
    // What a drained run leaves is sound as it stands.
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
    run(&mut tokenize("out")).expect_code(0);
    assert_eq!(workspace.digests("out"), workspace.digests("undisturbed"));
}

#[test]
fn sigterm_drains_and_the_next_start_ends_with_the_same_bytes() {
    drained_by(libc::SIGTERM);
}

#[test]
fn control_c_drains_as_well() {
    drained_by(libc::SIGINT);
}
