use crate::workspace;
use tests::{
    digest,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{run, start},
};

fn drained_by(signal: libc::c_int) {
    let (workspace, server) = (workspace(), S3Server::start());
    let sample = workspace.sample_folder(400);
    server.put_folder("bucket/images", &workspace.path("images"));
    let tokenize = |output: &str| {
        let mut command = workspace.tokenize_with_units_of(4, "s3://bucket/images", output);
        command.envs(server.environment());
        command
    };
    run(&mut tokenize("undisturbed")).expect_code(0);
    let units = |output: &str| {
        if workspace.path(output).exists() { digest::finished_units(&workspace.files(output)) } else { 0 }
    };
    // One image does not come, so that the run cannot end before the signal, however late that is sent.
    let withheld = format!("{}.JPEG", sample.images.last().expect("a sample").stem);
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let mut running = start(&mut tokenize("out"));
    assert!(running.wait_until("three units", || units("out") >= 3), "the run ended before its third unit");
    running.signal(signal);
    running.finish().expect_code(143);
    server.heal();
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
