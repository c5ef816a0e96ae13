use crate::workspace;
use tests::{
    digest,
    kills::kill_again_and_again,
    random::Random,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{run, start},
};

#[test]
fn killed_twenty_times_the_tables_are_those_of_an_undisturbed_run() {
    let workspace = workspace();
    workspace.sample_folder(400);
    let tokenize = |output: &str| {
        let mut command = workspace.tokenize_with_units_of(4, "images", output);
        command.args(["--units-in-flight", "2"]);
        command
    };
    run(&mut tokenize("undisturbed")).expect_code(0);
    let expected = workspace.digests("undisturbed");
    assert_eq!(digest::finished_units(&workspace.files("undisturbed")), 100);
    kill_again_and_again(&workspace, || tokenize("out"), ("undisturbed", "out"), 8, Random::new(20));

    run(&mut tokenize("out")).expect_code(0);
    assert_eq!(workspace.digests("out"), expected);
    assert!(digest::is_finished(&workspace.files("out")));
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
}

/// Over S3 the instant can be chosen exactly: after each of the first puts of a run was carried out and before the program could
/// know, and before it was carried out.
#[test]
fn killed_at_each_put_the_tables_are_those_of_an_undisturbed_run() {
    let workspace = workspace();
    let server = S3Server::start();
    workspace.sample_folder(24);
    server.put_folder("bucket/images", &workspace.path("images"));
    let tokenize = |output: &str| {
        // A request that is never answered holds the process until it is killed, not until it loses patience.
        let mut command = workspace.tokenize("s3://bucket/images", &format!("s3://bucket/{output}"));
        command.envs(server.environment()).args([
            "--units-in-flight",
            "1",
            "--read-timeout-seconds",
            "3600",
            "--heartbeat-seconds",
            "0",
        ]);
        command
    };
    run(&mut tokenize("undisturbed")).expect_code(0);
    let expected = digest::table_digests(&server.objects("bucket/undisturbed"));
    assert!(expected.len() >= 3 * 2);
    for (carried_out, fault) in [(true, Fault::CommitThenStall), (false, Fault::Stall)] {
        for put in 0..8 {
            let output = format!("out-{carried_out}-{put}");
            server.inject(FaultRule::new(fault).on(RequestKind::Put).after(put));
            let served = server.faults_served();
            let mut running = start(&mut tokenize(&output));
            let what = format!("put {put}");
            assert!(running.wait_until(&what, || server.faults_served() > served), "put {put} never came");
            running.kill();
            assert_eq!(running.finish().status.code(), None);
            server.heal();
            run(&mut tokenize(&output)).expect_code(0);
            let objects = server.objects(&format!("bucket/{output}"));
            assert_eq!(digest::table_digests(&objects), expected, "put {put}, carried out: {carried_out}");
            assert!(digest::is_finished(&objects));
        }
    }
    assert_eq!(server.open_uploads(), 0);
}
