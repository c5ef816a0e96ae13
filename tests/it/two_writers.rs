use crate::workspace;
use tests::{
    digest,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    tables,
    workspace::{run, start},
};

#[test]
fn two_processes_at_once_write_what_one_would() {
    let workspace = workspace();
    let sample = workspace.sample_folder(96);
    run(&mut workspace.tokenize("images", "alone")).expect_code(0);
    // The same command twice: both work on every unit that the other has not finished.
    let (first, second) =
        (start(&mut workspace.tokenize("images", "shared")), start(&mut workspace.tokenize("images", "shared")));
    first.finish().expect_code(0);
    second.finish().expect_code(0);
    assert_eq!(workspace.digests("shared"), workspace.digests("alone"));
    run(&mut workspace.restok(["verify", "shared"])).expect_code(0);
    assert_eq!(tables::tokens(&workspace.files("shared")).len(), sample.good());
}

#[test]
fn three_ranks_on_one_bucket_with_a_moody_store_write_what_one_would() {
    let workspace = workspace();
    let server = S3Server::start();
    workspace.sample_folder(96).write_webdataset(&workspace.path("shards"), 6);
    server.put_folder("bucket/shards", &workspace.path("shards"));
    let tokenize = |output: &str| {
        let mut command = workspace.tokenize("s3://bucket/shards/*.tar", &format!("s3://bucket/{output}"));
        command.envs(server.environment());
        command
    };
    run(&mut tokenize("alone")).expect_code(0);
    server.inject(FaultRule::new(Fault::Conflict).on(RequestKind::Put).fraction(0.3, 1));
    server.inject(FaultRule::new(Fault::SlowDown).fraction(0.1, 2));
    let ranks: Vec<_> = ["0", "1", "2"]
        .map(|rank| start(tokenize("shared").args(["--rank", rank, "--world-size", "3"])))
        .into_iter()
        .collect();
    for running in ranks {
        running.finish().expect_code(0);
    }
    server.heal();
    let (shared, alone) = (server.objects("bucket/shared"), server.objects("bucket/alone"));
    assert_eq!(digest::table_digests(&shared), digest::table_digests(&alone));
    assert!(digest::is_finished(&shared));
    assert!(server.faults_served() > 0);
}

#[test]
fn of_two_plans_at_once_one_owns_the_output_and_the_other_is_refused() {
    let workspace = workspace();
    workspace.sample_folder(48);
    let tokenize = |batch_crop: &str| {
        let mut command = workspace.tokenize("images", "out");
        command.args(["--crop", batch_crop]);
        command
    };
    let (first, second) = (start(&mut tokenize("adm-center-32")), start(&mut tokenize("adm-center-32-flip")));
    let mut ends = [first.finish(), second.finish()];
    ends.sort_by_key(|end| end.status.code());
    let [winner, loser] = ends;
    winner.expect_code(0);
    loser.expect_code(42).expect_message(&["another plan", "crop:", "adm-center-32-flip"]);
    run(&mut workspace.restok(["verify", "out"])).expect_code(0);
}
