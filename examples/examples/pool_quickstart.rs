//! Threads render pages into pooled buffers.
//!
//! `cargo run -p overdrive-examples --example pool_quickstart`

use std::error::Error;
use std::fmt::Write;
use std::thread;

use overdrive::pool::{Keep, Pool};

fn main() -> Result<(), Box<dyn Error>> {
    let pages = Pool::builder()
        .name("pages")
        .factory(|| String::with_capacity(4096))
        .reset(|page: &mut String| {
            page.clear();
            // One huge page must not pin its memory.
            if page.capacity() <= 64 * 1024 {
                Keep::Yes
            } else {
                Keep::Discard
            }
        })
        .weigher(String::capacity)
        .max_idle(256)
        .build()?;

    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let pages = pages.clone();
            thread::spawn(move || {
                for request in 0..10_000 {
                    let mut page = pages.get();
                    render(&mut page, worker, request).expect("writing to a string succeeds");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("no worker panics");
    }

    let stats = pages.stats();
    println!("{}: {stats:#?}", pages.name());
    println!("hit ratio {:.4}", stats.hit_ratio().unwrap_or_default());

    // The threads have ended, so their buffers are in the shared depot.
    pages.warm(8);
    let report = pages.trim_to(16 * 1024);
    println!(
        "under memory pressure: {report:?}, {} idle left",
        pages.stats().idle()
    );
    Ok(())
}

fn render(page: &mut String, worker: u32, request: u32) -> std::fmt::Result {
    write!(page, "<h1>{worker}/{request}</h1>")?;
    if request % 1000 == 500 {
        // Now and then a page outgrows its buffer.
        page.extend(std::iter::repeat_n('.', 100_000));
    }
    write!(page, "<p>{} bytes so far</p>", page.len())
}
