use crate::workspace;
use tests::{
    digest,
    random::Random,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{run, start},
};

/// Kills of the contract.
const KILLS: usize = 20;

/// Each attempt is killed after it has put a few files more, at a random instant within the work on the next one. Progress, not
/// the clock, decides: on any machine the kills fall between the first unit and the last.
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
    let units = digest::finished_units(&workspace.files("undisturbed"));
    assert_eq!(units, 100);

    let mut random = Random::new(20);
    let files = || if workspace.path("out").exists() { workspace.files("out").len() } else { 0 };
    let (mut killed, mut killed_between_first_and_last) = (0, 0);
    for attempt in 0..KILLS {
        let before = files();
        let mut running = start(&mut tokenize("out"));
        // Every fifth kill comes before the first file: while the program starts, lists or plans.
        let more_files = if attempt % 5 == 4 { 0 } else { 1 + random.below(8) as usize };
        running.wait_until(|| files() >= before + more_files);
        std::thread::sleep(std::time::Duration::from_micros(random.below(15_000)));
        running.kill();
        let finished = running.finish();
        killed += usize::from(finished.status.code().is_none());
        let done = digest::finished_units(&if files() > 0 { workspace.files("out") } else { Default::default() });
        killed_between_first_and_last += usize::from(0 < done && done < units);
        assert!(done < units, "attempt {attempt} came to the end before it was killed: give it more units");
    }
    assert_eq!(killed, KILLS);
    assert!(killed_between_first_and_last >= KILLS / 2, "{killed_between_first_and_last} kills in the middle");

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
        let mut command = workspace.tokenize("s3://bucket/images", &format!("s3://bucket/{output}"));
        // A request that is never answered holds the process until it is killed, not until it loses patience.
        command.envs(server.environment()).args(["--units-in-flight", "1"]);
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
            assert!(running.wait_until(|| server.faults_served() > served), "put {put} never came");
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
