use crate::workspace;
use std::{fs, path::Path};
use tests::{
    digest,
    s3_server::{Fault, FaultRule, RequestKind, S3Server},
    workspace::{Workspace, run, shipped, start, text},
};

/// The page about `outputs`.
fn report(workspace: &Workspace, outputs: &[&str]) -> String {
    let finished = run(workspace.restok(["report", "--to=page.html"]).args(outputs)).expect_code(0);
    assert!(finished.stdout.starts_with("page.html: "), "{}", finished.stdout);
    fs::read_to_string(workspace.path("page.html")).expect("a page")
}

/// The logs that the runs of an output have left: name and content.
fn logs(workspace: &Workspace, output: &str) -> Vec<(String, serde_json::Value)> {
    let is_log = |path: &str| path.starts_with("_log/") && !path.starts_with("_log/heartbeats/");
    let files = workspace.files(output).into_iter().filter(|(path, _)| is_log(path));
    files.map(|(path, bytes)| (path, serde_json::from_slice(&bytes).expect("a log"))).collect()
}

#[test]
fn a_page_shows_an_output_and_is_the_same_twice() {
    let workspace = workspace();
    let sample = workspace.sample_folder(48);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let page = report(&workspace, &["out"]);
    for part in ["Row counts", "Use of the codebook", "Rates of the runs", "Provenance"] {
        assert!(page.contains(&format!("<h3>{part}</h3>")), "{part}");
    }
    assert!(page.contains("<strong>48</strong><span>listed</span>"));
    assert!(page.contains(&format!("<strong>{}</strong><span>written</span>", sample.good())));
    assert_eq!(page.matches("<td>truncated</td>").count(), 1 + 2, "a reason, and two images of it");
    // What a broken image holds is data, whatever it looks like.
    assert!(page.contains("&lt;!DOCTYPE html&gt;") && !page.contains("404 Not Found</body>"));
    assert_eq!(page, report(&workspace, &["out"]));
    // An output below a folder is found there, and both make a page with a list of what is on it.
    fs::create_dir(workspace.path("all")).expect("a folder");
    fs::rename(workspace.path("out"), workspace.path("all/one")).expect("renamed");
    run(&mut workspace.tokenize("images", "all/two")).expect_code(0);
    // A training and scores that lie there too are not passed over.
    fs::create_dir(workspace.path("all/training")).expect("a folder");
    fs::write(workspace.path("all/training/metrics.csv"), "step,loss\n1,3.0\n2,2.0\n").expect("written");
    let page = report(&workspace, &["all"]);
    assert!(page.contains("href=\"#output-3\"") && page.contains("<h2>one</h2>") && page.contains("<h2>two</h2>"));
    assert!(page.contains("<h2>training</h2>") && page.contains("<h3>Curves</h3>"));
}

#[test]
fn a_single_generated_set_below_a_folder_is_no_sweep() {
    let workspace = workspace();
    let models = shipped("fashion-mnist");
    let (generator, tokenizer) = (text(&models.join("generator")), text(&models.join("tokenizer")));
    let set = |guidance: &str, output: &str| {
        let mut command = workspace.restok(["generate", "--generator", &generator, "--tokenizer", &tokenizer]);
        command.args(["--devices=cpu", "--device-threads=1", "--count=6", "--batch-size=6", "--pictures=png"]);
        command.args(["--guidance-scale", guidance, "--output", output]);
        run(&mut command).expect_code(0);
    };
    set("1", "sets/one");
    let page = report(&workspace, &["sets"]);
    for part in ["<h2>one</h2>", "Row counts", "Contact sheet", "Use of the codebook", "Rates of the runs"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("Sets of the sweep"));
    set("2", "sets/two");
    let page = report(&workspace, &["sets"]);
    assert!(page.contains("<h2>sets</h2>") && page.contains("Sets of the sweep"));
}

#[test]
fn every_end_but_a_kill_leaves_a_log_and_no_check_minds() {
    let workspace = workspace();
    workspace.sample_folder(48);
    // A reject rate that cannot hold: all units are made, and then the run fails.
    let tokenizer = text(&workspace.tokenizer());
    let mut strict = workspace.restok(["tokenize", "--source=images", "--output=out", "--tokenizer", &tokenizer]);
    strict.args(["--devices=cpu", "--batch-size=4", "--unit-size=8", "--max-reject-rate=0"]);
    run(&mut strict).expect_code(42).expect_message(&["images were rejected"]);
    let [(path, failed)] = &logs(&workspace, "out")[..] else { panic!("one log") };
    let stamp = path.rsplit('/').next().and_then(|name| name.strip_suffix("-rank0.json")).expect("a name");
    assert!(stamp.len() == 20 && stamp.ends_with('Z'), "{path}");
    assert_eq!((failed["outcome"].as_str(), failed["started"].as_str()), (Some("failed"), Some(stamp)));
    assert!(failed["problem"].as_str().expect("a problem").contains("rejected"));
    assert_eq!(failed["images_read"].as_array().and_then(|read| read.last()), Some(&48.into()));

    // Nothing is left to do, so that there is nothing to tell.
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    assert_eq!(logs(&workspace, "out").len(), 1);
    run(&mut workspace.restok(["verify", "out"])).expect_code(0).stdout.find("Nothing is wrong.").expect("sound");
    run(&mut workspace.restok(["finalize", "out", "--max-reject-rate=0.2"])).expect_code(0);

    // However often a run fails, the page stays short.
    let (folder, bytes) = (workspace.path("out").join(path), serde_json::to_vec(failed).expect("a log"));
    let folder = folder.parent().expect("a folder");
    for number in 0..120 {
        fs::write(folder.join(format!("20200101T000000.{number:03}Z-rank0.json")), &bytes).expect("written");
    }
    let page = report(&workspace, &["out"]);
    assert!(page.contains("21 older runs left logs too") && page.contains("100 runs, the last of "));
    assert_eq!(page.matches("<td>failed</td>").count(), 100);
    (0..120).for_each(|number| {
        fs::remove_file(folder.join(format!("20200101T000000.{number:03}Z-rank0.json"))).expect("removed");
    });

    // Another plan is refused, and leaves no trace in the output that is not its own.
    run(&mut workspace.tokenize_with_units_of(5, "images", "out")).expect_code(42).expect_message(&["unit_size"]);
    assert_eq!(logs(&workspace, "out").len(), 1);
}

#[test]
fn a_run_that_was_stopped_says_so_and_the_next_one_beside_it() {
    let workspace = workspace();
    let (sample, server) = (workspace.sample_folder(96), S3Server::start());
    server.put_folder("bucket/images", &workspace.path("images"));
    let tokenize = || {
        let mut command = workspace.tokenize_with_units_of(4, "s3://bucket/images", "out");
        command.envs(server.environment());
        command
    };
    // One image does not come, so that the run cannot end before the signal, however late that is sent.
    let withheld = format!("{}.JPEG", sample.images.last().expect("a sample").stem);
    server.inject(FaultRule::new(Fault::Stall).on(RequestKind::Get).path_contains(&withheld));
    let mut running = start(&mut tokenize());
    let units = || if workspace.path("out").exists() { digest::finished_units(&workspace.files("out")) } else { 0 };
    assert!(running.wait_until("two units", || units() >= 2), "the run ended before its second unit");
    running.signal(libc::SIGTERM);
    running.finish().expect_code(143);
    server.heal();
    run(&mut tokenize()).expect_code(0);
    let outcomes: Vec<_> = logs(&workspace, "out").into_iter().map(|(_, log)| log["outcome"].clone()).collect();
    assert_eq!(outcomes, ["stopped", "finished"]);
    let page = report(&workspace, &["out"]);
    assert!(page.contains("<td>stopped</td>") && page.matches("<h4>Run of ").count() == 2);
}

#[test]
fn what_is_damaged_or_foreign_is_named_and_no_page_is_written() {
    let workspace = workspace();
    workspace.sample_folder(24);
    fs::create_dir(workspace.path("holiday")).expect("a folder");
    fs::write(workspace.path("holiday/beach.txt"), "sand").expect("a file");
    let refused = |output: &str, parts: &[&str]| {
        run(&mut workspace.restok(["report", output])).expect_code(42).expect_message(parts);
        assert!(!workspace.path("report.html").exists());
    };
    refused("holiday", &["holiday", "expected an output of `restok tokenize`"]);
    refused("nowhere", &["nowhere"]);
    run(&mut workspace.tokenize("images", "out")).expect_code(0);
    let tokens = workspace.files("out").into_keys().find(|path| path.starts_with("tokens/")).expect("a file");
    let file = workspace.path("out").join(&tokens);
    let bytes = fs::read(&file).expect("a tokens file");
    fs::write(&file, &bytes[..bytes.len() / 2]).expect("written");
    refused("out", &[Path::new(&tokens).file_name().and_then(|name| name.to_str()).expect("a name")]);
    fs::write(&file, bytes).expect("written");
    fs::create_dir(workspace.path("run")).expect("a folder");
    fs::write(workspace.path("run/metrics.csv"), "when,loss\n1,2.0\n").expect("written");
    refused("run", &["run/metrics.csv", "\"step\""]);
    run(&mut workspace.restok(["report"])).expect_code(42).expect_message(&["OUTPUT as an argument"]);
    // With nothing wrong, the page is there under the name that was asked for.
    let page = workspace.path("page.html");
    run(&mut workspace.restok(["report", "out", "--to", &text(&page)])).expect_code(0);
    assert!(page.exists());
    // Where there is no file to put in its place, it is written to, and nothing else with it.
    let piped = run(&mut workspace.restok(["report", "out", "--to=/dev/stdout"])).expect_code(0).stdout;
    assert_eq!(piped, fs::read_to_string(page).expect("a page"));
    assert!(fs::symlink_metadata("/dev/stdout").is_ok_and(|there| there.is_symlink()));
}
