use crate::workspace;
use serde_json::Value;
use tests::{s3_server::S3Server, workspace::run};

#[test]
fn what_is_there_is_told_and_credentials_by_name_alone() {
    let (workspace, server) = (workspace(), S3Server::start());
    workspace.sample_folder(8);
    server.put_folder("bucket/images", &workspace.path("images"));
    let doctor = |arguments: &[&str]| {
        let mut command = workspace.restok(["doctor"]);
        command.args(arguments).envs(server.environment());
        command.env("HF_TOKEN", "hush-hush");
        command
    };
    let told = run(&mut doctor(&["s3://bucket/images", "images"])).expect_code(0).stdout;
    for word in ["libtorch", "cpu-", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "reached, 8 objects", "one process"] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
    assert!(!told.contains("hush-hush"), "{told}");
    let secret = server.environment().into_iter().find(|(name, _)| *name == "AWS_SECRET_ACCESS_KEY").expect("a key").1;
    assert!(!told.contains(&secret), "{told}");

    let found = run(&mut doctor(&["--format", "json"])).expect_code(0).stdout;
    let found: Value = serde_json::from_str(&found).expect("JSON");
    assert_eq!(found["devices"][0]["device"], "cpu");
    assert_eq!(found["variables"]["model hub"], serde_json::json!(["HF_TOKEN"]));
}

#[test]
fn a_store_that_does_not_answer_is_told_with_everything_else() {
    let workspace = workspace();
    workspace.sample_folder(8);
    // Nobody listens there.
    let command = &mut workspace.restok(["doctor", "https://127.0.0.1:9/images", "images", "--retry-attempts", "1"]);
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(75), "{}", ended.stderr);
    assert!(ended.stdout.contains("not reached") && ended.stdout.contains("reached, 8 objects"), "{}", ended.stdout);
}

#[test]
fn a_file_a_pattern_and_nothing_are_told_apart() {
    let workspace = workspace();
    workspace.sample_folder(8);
    for shard in ["0.tar", "1.tar"] {
        std::fs::write(workspace.path(shard), [0; 1024]).expect("a file");
    }
    let told = run(&mut workspace.restok(["doctor", "./{0..1}.tar", "2.tar", "nowhere", "./*.tarr", "./*.tar"]))
        .expect_code(0)
        .stdout;
    assert!(
        told.contains("0.tar has 1.00 KiB")
            && told.contains("there is no ")
            && told.matches("nothing there").count() == 2
            && told.contains("reached, 2 objects"),
        "{told}"
    );
    run(&mut workspace.restok(["doctor", "images/{0..9.tar"])).expect_code(42).expect_message(&["not closed"]);
}
