//! What the pipeline owes to the world outside it, one file a promise.

mod decode_hostile_files; // whatever the bytes are, an image of its size or a typed reject
mod engine; // units that an engine hands out: in its order, by any number of workers, with its silence and its stops
mod generate; // samples and decoded tokens: the same set from any number of workers and after any death
mod hostile_sources;
mod plan; // every input in exactly one unit, and the same listing always the same plan
mod preprocessing_parity; // decoding and crops equal Pillow's, value for value
mod reference; // what a set is compared with: written, read back, and refused where it is something else
mod run_end_to_end; // from images in every layout to tables that read back
mod run_failures; // what ends a run, and what it says then
mod run_resume; // killed and started again, exactly the tables of an undisturbed run
mod run_support; // a small set of images in each layout, and runs over it
mod sample_archive; // the evaluation archive: what the files hold, in order, whole or not at all
mod sample_files; // generated images as files, which our own readers and others open
mod sample_set; // one set of images, written in any of the three layouts
mod scores; // the lines of evaluations: written once, a text of them all
mod scoring_run; // killed, shared, damaged: the same features in the end, or a word on what to do
mod scoring_sources; // the same pictures in any form give the same rows
mod scoring_support; // a small set of pictures in each form, and runs over it
mod source_as_found;
mod source_listing; // patterns that must be whole, layouts, labels, keys
mod source_over_http; // a web server: ranges of names and bytes, signatures that nothing shows
mod source_reading; // three layouts alike, order and limits kept
mod source_support; // settings, plans and readers for the tests of sources
mod storage; // create-only writes, reads that notice short bodies, sorted lists
mod tables_round_trip; // tables on disk: bytes, sizes, types
mod token_support; // finished outputs with many small files, and their rows by codes
mod training_failures; // what ends training on images, and what must not go on at an old position
mod training_images; // the same batches whatever the timing, and exactly on from any position
mod training_support; // options and streams for the tests of training images
mod training_tokens; // every image once an epoch, one view drawn, exactly on from any batch, no scan before the first
mod training_tokens_refused; // tables that a generator must not be trained on, each refused by name
mod validation_images; // the source once, in its own order, the last batch padded
mod verify_damage; // verify finds each kind of damage, and names the file it is in
