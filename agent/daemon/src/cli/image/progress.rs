//! How far a pull is, on standard error: a bar per layer on a terminal, a line per change elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use coracle_image::ImageName;
use coracle_pull::{LayerProgress, LayerState, Progress, Stage};
use rustix::stdio::stderr;
use rustix::termios::tcgetwinsize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{short, size};

/// Between two pictures on a terminal.
const PICTURE: Duration = Duration::from_millis(100);
/// A bar's width.
const BAR: u64 = 30;
/// Of a terminal that does not tell its size.
const USUAL: (usize, usize) = (80, 24);

/// A pull, as it is shown.
pub(super) struct Shown {
    name: String,
    on: On,
}

enum On {
    Terminal(Screen),
    Other(Lines),
}

/// The lines on a terminal that are drawn again and again.
#[derive(Default)]
struct Screen {
    /// The lengths of those that were drawn last.
    drawn: Vec<usize>,
}

/// What was told, on anything else.
#[derive(Default)]
struct Lines {
    stage: Option<Stage>,
    layers: Vec<LayerState>,
}

// === impl Shown ===

impl Shown {
    pub(super) fn new(name: &ImageName) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let on = match io::stderr().is_terminal() && !dumb {
            true => On::Terminal(Screen::default()),
            false => On::Other(Lines::default()),
        };
        Self { name: name.familiar(), on }
    }

    /// Shows what there is to show, until the pull has ended.
    pub(super) async fn follow(mut self, mut progress: watch::Receiver<Progress>) {
        loop {
            let now = progress.borrow_and_update().clone();
            // A terminal that has gone needs to be shown nothing.
            let _ = match &mut self.on {
                On::Terminal(screen) => {
                    let window = window();
                    screen.draw(&picture(&self.name, &now, window), window.0)
                }
                On::Other(lines) => lines
                    .news(&self.name, &now)
                    .into_iter()
                    .try_for_each(|line| writeln!(io::stderr(), "{line}")),
            };
            if matches!(self.on, On::Terminal(_)) {
                sleep(PICTURE).await;
            }
            if progress.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Columns and rows.
fn window() -> (usize, usize) {
    match tcgetwinsize(stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}

// === impl Screen ===

impl Screen {
    /// Puts lines in the place of those that were drawn before.
    fn draw(&mut self, lines: &[String], columns: usize) -> io::Result<()> {
        let mut text = String::new();
        let rows = rows_of(&self.drawn, columns);
        if rows > 0 {
            text.push_str(&format!("\x1b[{rows}A"));
        }
        for line in lines {
            text.push_str(&format!("\x1b[2K{line}\r\n"));
        }
        text.push_str("\x1b[J");
        self.drawn = lines.iter().map(|line| line.chars().count()).collect();
        let mut err = io::stderr().lock();
        err.write_all(text.as_bytes())?;
        err.flush()
    }
}

/// How many rows lines of these lengths take: a terminal that has become narrower has broken those that are longer now, as
/// all do today but xterm, where a line or two above the picture would be drawn over.
fn rows_of(lengths: &[usize], columns: usize) -> usize {
    lengths.iter().map(|length| length.div_ceil(columns.max(1)).max(1)).sum()
}

/// A line for the image and one for each of its layers, as far as there is room: those that nothing happens to give
/// way first.
fn picture(name: &str, progress: &Progress, (columns, rows): (usize, usize)) -> Vec<String> {
    let total = |of: fn(&LayerProgress) -> u64| progress.layers.iter().map(of).sum::<u64>();
    let missing = |layer: &LayerProgress| if layer.state == LayerState::Exists { 0 } else { layer.size };
    let head = match progress.stage {
        Stage::Pulling => {
            format!("{name}: pulling, {} of {}", size(total(|layer| layer.done)), size(total(missing)))
        }
        stage => format!("{name}: {}", words(stage)),
    };
    let moving = |layer: &&LayerProgress| matches!(layer.state, LayerState::Pulling | LayerState::Unpacking);
    // One row stays for the cursor.
    let room = rows.saturating_sub(2);
    let all = progress.layers.len();
    let shown: Vec<_> = match all <= room {
        true => progress.layers.iter().collect(),
        false => progress.layers.iter().filter(moving).take(room.saturating_sub(1)).collect(),
    };
    let mut lines = vec![head];
    lines.extend(shown.iter().map(|layer| bar(layer)));
    if shown.len() < all {
        let done = progress.layers.iter().filter(|layer| is_done(layer.state)).count();
        lines.push(format!("  {done} of {all} layers are here"));
    }
    lines.into_iter().map(|line| line.chars().take(columns.saturating_sub(1)).collect()).collect()
}

fn bar(layer: &LayerProgress) -> String {
    let id = short(&layer.digest);
    match layer.state {
        LayerState::Waiting => format!("  {id}  waiting"),
        LayerState::Exists => format!("  {id}  already here"),
        LayerState::Complete => format!("  {id}  complete, {}", size(layer.size)),
        LayerState::Pulling | LayerState::Unpacking => {
            let filled = match layer.size {
                0 => BAR,
                size => (u128::from(layer.done) * u128::from(BAR) / u128::from(size)) as u64,
            };
            let filled = usize::try_from(filled.min(BAR)).unwrap_or_default();
            let (done, width) = ("=".repeat(filled), BAR as usize);
            let what = if layer.state == LayerState::Unpacking { ", unpacking" } else { "" };
            format!("  {id}  [{done:<width$}]  {} of {}{what}", size(layer.done), size(layer.size))
        }
    }
}

fn is_done(state: LayerState) -> bool {
    matches!(state, LayerState::Exists | LayerState::Complete)
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::Waiting => "waiting for its turn",
        Stage::Resolving => "asking its registry",
        Stage::Pulling => "pulling",
        Stage::Committing => "writing to the disk",
    }
}

// === impl Lines ===

impl Lines {
    /// What is to be told that was not.
    fn news(&mut self, name: &str, progress: &Progress) -> Vec<String> {
        let mut news = Vec::new();
        let is_new = self.stage != Some(progress.stage) && progress.stage != Stage::Waiting;
        let stage = is_new.then(|| format!("{name}: {}", words(progress.stage)));
        self.stage = Some(progress.stage);
        if progress.layers.len() != self.layers.len() {
            // A state that nobody was told of yet.
            self.layers = vec![LayerState::Waiting; progress.layers.len()];
        }
        for (told, layer) in self.layers.iter_mut().zip(&progress.layers) {
            let text = match layer.state {
                state if state == *told => continue,
                LayerState::Waiting | LayerState::Unpacking => continue,
                LayerState::Exists => "already here".to_owned(),
                LayerState::Pulling => format!("pulling {}", size(layer.size)),
                LayerState::Complete => "complete".to_owned(),
            };
            *told = layer.state;
            news.push(format!("{name}: {}: {text}", short(&layer.digest)));
        }
        match stage {
            // Of what is brought to the disk it is told first that it has come.
            Some(stage) if progress.stage == Stage::Committing => news.push(stage),
            Some(stage) => news.insert(0, stage),
            None => {}
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use coracle_image::Digest;

    use super::*;

    fn layer(number: u8, done: u64, state: LayerState) -> LayerProgress {
        LayerProgress { digest: Digest::of(&[number]), size: 1_000_000, done, state }
    }

    fn progress(layers: Vec<LayerProgress>) -> Progress {
        Progress { stage: Stage::Pulling, layers, ..Progress::default() }
    }

    #[test]
    fn a_terminal_shows_a_bar_for_each_layer() {
        let now = progress(vec![
            layer(0, 0, LayerState::Exists),
            layer(1, 1_000_000, LayerState::Complete),
            layer(2, 500_000, LayerState::Pulling),
            layer(3, 0, LayerState::Waiting),
        ]);
        assert_eq!(
            picture("nginx:latest", &now, (80, 24)),
            [
                "nginx:latest: pulling, 1.5MB of 3.0MB",
                "  6e340b9cffb3  already here",
                "  4bf5122f3445  complete, 1.0MB",
                "  dbc1b4c900ff  [===============               ]  500kB of 1.0MB",
                "  084fed08b978  waiting",
            ]
        );
        let narrow = picture("nginx:latest", &now, (10, 24));
        assert!(narrow.iter().all(|line| line.len() == 9), "{narrow:?}");
    }

    #[test]
    fn a_terminal_that_has_become_narrower_has_broken_lines() {
        assert_eq!(rows_of(&[], 80), 0);
        assert_eq!(rows_of(&[79, 0, 10], 80), 3);
        assert_eq!(rows_of(&[79, 0, 10, 40, 41], 40), 2 + 1 + 1 + 1 + 2);
    }

    #[test]
    fn where_there_is_no_room_what_moves_is_shown() {
        let mut layers: Vec<_> = (0..40).map(|number| layer(number, 0, LayerState::Waiting)).collect();
        layers[0].state = LayerState::Exists;
        layers[20].state = LayerState::Pulling;
        let lines = picture("x", &progress(layers), (80, 10));
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains('['), "{lines:?}");
        assert_eq!(lines[2], "  1 of 40 layers are here");
    }

    #[test]
    fn elsewhere_each_change_is_a_line() {
        let mut lines = Lines::default();
        assert!(lines.news("x", &Progress::default()).is_empty());
        let mut now = progress(vec![layer(0, 0, LayerState::Exists), layer(1, 0, LayerState::Waiting)]);
        assert_eq!(lines.news("x", &now), ["x: pulling", "x: 6e340b9cffb3: already here"]);
        now.layers[1].state = LayerState::Pulling;
        assert_eq!(lines.news("x", &now), ["x: 4bf5122f3445: pulling 1.0MB"]);
        now.layers[1].done = 10;
        assert!(lines.news("x", &now).is_empty());
        now.layers[1].state = LayerState::Complete;
        now.stage = Stage::Committing;
        assert_eq!(lines.news("x", &now), ["x: 4bf5122f3445: complete", "x: writing to the disk"]);
    }
}
