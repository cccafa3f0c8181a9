//! A terminal that a program is shown on, and what is then to be seen there.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// A pseudoterminal, whose other end draws what programs write to it.
pub struct Terminal {
    master: OwnedFd,
    screen: Arc<Mutex<Screen>>,
    reader: Option<JoinHandle<()>>,
}

/// What can be seen, and what has scrolled away. It breaks long lines, and breaks them elsewhere when its width changes, as
/// terminals of today do.
struct Screen {
    columns: usize,
    height: usize,
    rows: Vec<Row>,
    /// Row and column.
    cursor: (usize, usize),
    /// Of an escape sequence, what has come so far.
    escape: Option<String>,
}

#[derive(Clone, Default)]
struct Row {
    text: String,
    /// Whether its line goes on in the next one.
    wraps: bool,
}

// === impl Terminal ===

impl Terminal {
    /// A terminal of so many columns and rows, and the end that a program has.
    pub fn open(columns: u16, rows: u16) -> (Self, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let program = openat(CWD, name, flags, Mode::empty()).unwrap();
        let screen = Screen {
            columns: columns.into(),
            height: rows.into(),
            rows: vec![Row::default()],
            cursor: (0, 0),
            escape: None,
        };
        let screen = Arc::new(Mutex::new(screen));
        let (mut output, drawn) = (File::from(master.try_clone().unwrap()), Arc::clone(&screen));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It fails when nobody has the other end any more.
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                // What programs of ours write is ASCII.
                let mut screen = drawn.lock().unwrap();
                buffer[..count].iter().for_each(|byte| screen.put(char::from(*byte)));
            }
        });
        let terminal = Self { master, screen, reader: Some(reader) };
        terminal.tell(columns, rows);
        (terminal, program)
    }

    /// Has another size from now on.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.screen.lock().unwrap().resize(columns.into(), rows.into());
        self.tell(columns, rows);
    }

    /// Every row, also those that have scrolled away; without the empty ones at the end.
    pub fn rows(&self) -> Vec<String> {
        let mut rows: Vec<_> =
            self.screen.lock().unwrap().rows.iter().map(|row| row.text.trim_end().to_owned()).collect();
        while rows.pop_if(|row| row.is_empty()).is_some() {}
        rows
    }

    /// The same, once all programs have closed their end.
    pub fn last(mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.rows()
    }

    fn tell(&self, columns: u16, rows: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).unwrap();
    }
}

// === impl Screen ===

impl Screen {
    fn put(&mut self, character: char) {
        if let Some(mut escape) = self.escape.take() {
            escape.push(character);
            match character {
                '[' | '0'..='9' | ';' => self.escape = Some(escape),
                _ => self.obey(&escape),
            }
            return;
        }
        match character {
            '\x1b' => self.escape = Some(String::new()),
            '\r' => self.cursor.1 = 0,
            '\n' => self.down(),
            _ => {
                if self.cursor.1 == self.columns {
                    self.rows[self.cursor.0].wraps = true;
                    self.down();
                    self.cursor.1 = 0;
                }
                let text = &mut self.rows[self.cursor.0].text;
                while text.len() <= self.cursor.1 {
                    text.push(' ');
                }
                text.replace_range(self.cursor.1..=self.cursor.1, &character.to_string());
                self.cursor.1 += 1;
            }
        }
    }

    fn down(&mut self) {
        self.cursor.0 += 1;
        if self.cursor.0 == self.rows.len() {
            self.rows.push(Row::default());
        }
    }

    /// ECMA-48's sequences, as far as our programs use them.
    fn obey(&mut self, sequence: &str) {
        let (row, column) = self.cursor;
        let number = |digits: &str| digits.parse::<usize>().unwrap_or(1);
        match sequence.strip_prefix('[').and_then(|rest| rest.split_at_checked(rest.len() - 1)) {
            Some((digits, "A")) => {
                let top = self.rows.len().saturating_sub(self.height);
                self.cursor.0 = row.saturating_sub(number(digits)).max(top);
            }
            Some(("2", "K")) => self.rows[row] = Row::default(),
            Some(("" | "0", "J")) => {
                self.rows.truncate(row + 1);
                self.rows[row].text.truncate(column);
                self.rows[row].wraps = false;
            }
            _ => panic!("a terminal is told {sequence:?}"),
        }
    }

    fn resize(&mut self, columns: usize, height: usize) {
        let (mut lines, mut at) = (vec![String::new()], (0, 0));
        for (index, row) in self.rows.iter().enumerate() {
            let line = lines.len() - 1;
            if index == self.cursor.0 {
                at = (line, lines[line].len() + self.cursor.1);
            }
            lines[line].push_str(&row.text);
            if !row.wraps && index + 1 < self.rows.len() {
                lines.push(String::new());
            }
        }
        self.rows.clear();
        for (index, line) in lines.iter().enumerate() {
            if index == at.0 {
                self.cursor = (self.rows.len() + at.1 / columns, at.1 % columns);
            }
            let parts = line.len().div_ceil(columns).max(1);
            for part in 0..parts {
                let text = line[part * columns..line.len().min((part + 1) * columns)].to_owned();
                self.rows.push(Row { text, wraps: part + 1 < parts });
            }
        }
        (self.columns, self.height) = (columns, height);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(text: &str) -> Screen {
        let mut screen =
            Screen { columns: 10, height: 3, rows: vec![Row::default()], cursor: (0, 0), escape: None };
        text.chars().for_each(|character| screen.put(character));
        screen
    }

    fn rows(screen: &Screen) -> Vec<&str> {
        screen.rows.iter().map(|row| row.text.as_str()).collect()
    }

    #[test]
    fn lines_are_drawn_over_and_broken_anew() {
        let mut drawn = screen("one\r\ntwo\r\n\x1b[2A\x1b[2KONE\r\n");
        assert_eq!(rows(&drawn), ["ONE", "two", ""]);
        "\x1b[J".chars().for_each(|character| drawn.put(character));
        assert_eq!((rows(&drawn), drawn.cursor), (vec!["ONE", ""], (1, 0)));

        let mut long = screen("0123456789abc\r\nx");
        assert_eq!(rows(&long), ["0123456789", "abc", "x"]);
        long.resize(5, 3);
        assert_eq!((rows(&long), long.cursor), (vec!["01234", "56789", "abc", "x"], (3, 1)));
        long.resize(20, 3);
        assert_eq!((rows(&long), long.cursor), (vec!["0123456789abc", "x"], (1, 1)));
        let top = screen("a\r\nb\r\nc\r\nd\x1b[9AB");
        assert_eq!(rows(&top), ["a", "bB", "c", "d"]);
    }
}
