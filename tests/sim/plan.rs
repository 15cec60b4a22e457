//! What an exchange is meant to be, chosen before it happens: the request, how its client behaves, and what the backend
//! does with it. Whatever goes wrong must follow from a plan or from a trouble that the scenario has noted.

use super::dice::Dice;

/// Framing of a request's body, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    None,
    Length(usize),
    Chunked(usize),
}

impl Upload {
    pub fn len(self) -> usize {
        match self {
            Upload::None => 0,
            Upload::Length(n) | Upload::Chunked(n) => n,
        }
    }
}

/// How a client behaves in one exchange. All but the first two end its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Sends all, reads all.
    Whole,
    /// The same, with pauses.
    Slow,
    /// Sends all, ends its sending side, reads all.
    HalfClose,
    /// Sends this much of the request in thousandths, then resets or closes.
    CutRequest { part: usize, reset: bool },
    /// Sends all and goes away after a while without reading.
    GoAway { after_us: u64, reset: bool },
    /// Reads so many bytes of what comes and resets or closes.
    CutResponse { bytes: usize, reset: bool },
    /// Sends this much of the request in thousandths and then nothing.
    Stall { part: usize },
    /// Sends the body so slowly that it must not be waited for.
    Drip,
    /// Never reads.
    StopReading,
    /// Sends what is no HTTP; the number says what.
    Malformed(usize),
}

impl Manner {
    /// Whether the client behaves so that its exchange may end in any way.
    pub fn is_fault(self) -> bool {
        !matches!(self, Manner::Whole | Manner::Slow | Manner::HalfClose)
    }
}

/// Framing of a response's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    Length,
    Chunked,
    /// Until the end of the connection, HTTP/1.1.
    Close,
    /// The same from a server of 1.0.
    Close10,
}

/// What a backend does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Resets or closes before it answers.
    CutBeforeHead { reset: bool },
    /// Within the response's head.
    CutInHead { reset: bool },
    /// Within its body.
    CutBody { reset: bool },
    /// Answers what is no HTTP; the number says what.
    Garbage(usize),
    /// Falls silent before the head.
    StallHead,
    /// Within the body.
    StallBody,
    /// Resets while the request comes.
    CutRequest,
}

impl Wrong {
    /// Whether the client may have got a part of the response.
    pub fn within_response(self) -> bool {
        matches!(self, Wrong::CutBody { .. } | Wrong::StallBody | Wrong::Garbage(7))
    }
}

/// What a backend does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    pub status: u16,
    pub len: usize,
    pub frame: Frame,
    pub interims: usize,
    pub delay_us: u64,
    pub pause_us: u64,
    /// Answers before it reads the body.
    pub early: bool,
    /// Closes after the answer, announced or not.
    pub close: Option<bool>,
    pub trailer: bool,
    /// Sends what nobody has asked for in one piece with its response.
    pub behind: bool,
    pub wrong: Option<Wrong>,
    /// Does it wrong only the first time.
    pub once: bool,
    /// Switches protocols if asked to.
    pub switch: bool,
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct Plan {
    pub id: usize,
    pub method: &'static str,
    pub http10: bool,
    /// `Connection: close`, or for 1.0 no `keep-alive`.
    pub last: bool,
    /// None is a host that nobody serves.
    pub cluster: Option<usize>,
    pub upload: Upload,
    pub expect: bool,
    pub upgrade: bool,
    pub manner: Manner,
    pub script: Script,
    /// Waits so long before it sends.
    pub gap_us: u64,
}

impl Plan {
    pub fn idempotent(&self) -> bool {
        self.method != "POST"
    }

    /// Length of the body that the client is to get.
    pub fn download(&self) -> usize {
        let none = self.method == "HEAD" || matches!(self.script.status, 101 | 204 | 304);
        if none { 0 } else { self.script.len }
    }

    /// A GET that is served at once.
    pub fn plain(id: usize, cluster: usize) -> Plan {
        let script = Script {
            status: 200,
            len: 100,
            frame: Frame::Length,
            interims: 0,
            delay_us: 0,
            pause_us: 0,
            early: false,
            close: None,
            trailer: false,
            behind: false,
            wrong: None,
            once: false,
            switch: false,
        };
        Plan {
            id,
            method: "GET",
            http10: false,
            last: false,
            cluster: Some(cluster),
            upload: Upload::None,
            expect: false,
            upgrade: false,
            manner: Manner::Whole,
            script,
            gap_us: 0,
        }
    }

    /// One of many that come together: a head or a body that stops, a backend that falls silent before or in its answer.
    pub fn of_storm(id: usize, cluster: usize, kind: u64, part: usize) -> Plan {
        let mut plan = Plan::plain(id, cluster);
        match kind {
            0 => plan.manner = Manner::Stall { part },
            1 => {
                (plan.method, plan.upload) = ("POST", Upload::Length(5_000));
                plan.manner = Manner::Stall { part: part.max(100) };
            }
            2 => plan.script.wrong = Some(Wrong::StallHead),
            _ => (plan.script.wrong, plan.script.len) = (Some(Wrong::StallBody), 5_000),
        }
        plan
    }

    /// Any exchange; faults are some of them.
    pub fn random(dice: &mut Dice, id: usize, clusters: usize, first: bool) -> Plan {
        let upgrade = dice.once_in(16);
        let method = if upgrade { "GET" } else { dice.pick(&["GET", "GET", "HEAD", "POST", "POST", "PUT"]) };
        let upload = match method {
            "POST" | "PUT" => match dice.below(4) {
                0 => Upload::None,
                1 | 2 => Upload::Length(dice.length()),
                _ => Upload::Chunked(dice.length()),
            },
            _ if dice.once_in(12) && !upgrade => Upload::Length(dice.range(1, 500)),
            _ => Upload::None,
        };
        let http10 = !upgrade && !matches!(upload, Upload::Chunked(_)) && dice.once_in(8);
        let expect = !http10 && upload.len() > 0 && dice.once_in(5);
        let cluster = (!dice.once_in(25)).then(|| dice.below(clusters as u64) as usize);
        let gap_us = if first || dice.once_in(2) { 0 } else { dice.below(1_500_000) };
        let mut script = Script::random(dice);
        script.switch = upgrade && !dice.once_in(4);
        if script.switch {
            (script.status, script.close, script.early) = (101, None, false);
            script.wrong = script.wrong.filter(|w| !matches!(w, Wrong::CutBody { .. } | Wrong::StallBody));
        }
        let manner = Manner::random(dice, upload, upgrade);
        if matches!(manner, Manner::StopReading | Manner::CutResponse { .. }) {
            script.len = script.len.max(40_000);
        }
        if script.early {
            // Or it would not read the body for longer than anybody waits.
            script.pause_us = 0;
        }
        let last = dice.once_in(10);
        Plan { id, method, http10, last, cluster, upload, expect, upgrade, manner, script, gap_us }
    }
}

impl Manner {
    fn random(dice: &mut Dice, upload: Upload, upgrade: bool) -> Manner {
        let (part, reset) = (dice.range(1, 999), dice.once_in(2));
        match dice.below(36) {
            0 => Manner::CutRequest { part, reset },
            1 => Manner::GoAway { after_us: dice.below(3_000_000), reset },
            2 if !upgrade => Manner::CutResponse { bytes: dice.range(1, 30_000), reset },
            3 => Manner::Stall { part },
            4 if upload.len() > 1000 => Manner::Drip,
            5 if dice.once_in(2) => Manner::StopReading,
            6 => Manner::Malformed(dice.range(0, 9)),
            7 if !upgrade => Manner::HalfClose,
            8..12 => Manner::Slow,
            _ => Manner::Whole,
        }
    }
}

impl Script {
    fn random(dice: &mut Dice) -> Script {
        let reset = dice.once_in(2);
        let wrong = match dice.below(40) {
            0 => Some(Wrong::CutBeforeHead { reset }),
            1 => Some(Wrong::CutInHead { reset }),
            2 => Some(Wrong::CutBody { reset }),
            3 => Some(Wrong::Garbage(dice.range(0, 7))),
            4 => Some(Wrong::StallHead),
            5 => Some(Wrong::StallBody),
            6 => Some(Wrong::CutRequest),
            _ => None,
        };
        let len = dice.length();
        let behind = dice.once_in(10);
        // So that what nobody has asked for comes behind a body, too, and not only behind a head.
        let pauses = dice.once_in(if behind { 2 } else { 8 });
        Script {
            status: dice.pick(&[200, 200, 200, 200, 201, 204, 304, 404, 500, 503]),
            len: if matches!(wrong, Some(Wrong::CutBody { .. } | Wrong::StallBody)) { len.max(2) } else { len },
            frame: dice.pick(&[
                Frame::Length,
                Frame::Length,
                Frame::Length,
                Frame::Chunked,
                Frame::Chunked,
                Frame::Close,
                Frame::Close10,
            ]),
            interims: if dice.once_in(8) { dice.range(1, 3) } else { 0 },
            delay_us: if dice.once_in(4) { dice.below(900_000) } else { 0 },
            pause_us: if pauses { dice.below(900_000) } else { 0 },
            early: dice.once_in(10),
            close: if dice.once_in(10) { Some(dice.once_in(2)) } else { None },
            trailer: dice.once_in(4),
            behind,
            wrong,
            once: dice.once_in(2),
            switch: false,
        }
    }
}
