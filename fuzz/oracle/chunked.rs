//! A chunked body decodes the same in pieces of any size, as the strict grammar says it does, and what is written from it
//! decodes to the same again. Input: the size of a piece, then the body.

use super::grammar;
use super::policy::{self, Case};
use super::wire;
use ringway::http::body::{Body, CHUNK_PREFIX_MAX, END_OF_CHUNK, LAST_CHUNK, chunk_prefix};
use ringway::http::framing::Framing;
use ringway::http::reject::Fault;

#[derive(Debug, PartialEq)]
struct Outcome {
    payload: Vec<u8>,
    consumed: usize,
    done: bool,
    trailers: Vec<u8>,
}

fn decode(input: &[u8], piece: usize) -> Result<Outcome, (Fault, usize)> {
    let mut body = Body::new(Framing::Chunked);
    let (mut payload, mut consumed) = (Vec::new(), 0);
    for part in input.chunks(piece) {
        let mut part = part.to_vec();
        let decoded = body.decode(&mut part).map_err(|f| (f.fault, consumed + f.at))?;
        assert!(decoded.payload.end <= decoded.consumed && decoded.consumed <= part.len());
        payload.extend_from_slice(&part[decoded.payload.clone()]);
        consumed += decoded.consumed;
        if body.is_done() {
            let room = decoded.consumed - decoded.payload.end;
            let framing = END_OF_CHUNK.len() + LAST_CHUNK.len() + body.trailers().len() + 2;
            assert!(decoded.payload.is_empty() || framing <= room);
            break;
        }
        assert_eq!(decoded.consumed, part.len());
    }
    assert_eq!(body.payload_bytes(), payload.len() as u64);
    Ok(Outcome { payload, consumed, done: body.is_done(), trailers: body.trailers().to_vec() })
}

/// Judges one input.
pub fn check(bytes: &[u8]) {
    let Some((&piece, input)) = bytes.split_first() else { return };
    let whole = decode(input, input.len().max(1));
    assert_eq!(decode(input, 1), whole);
    assert_eq!(decode(input, usize::from(piece).max(1)), whole);
    agrees(input, &whole);

    let Ok(Outcome { payload, done: true, trailers, .. }) = whole else { return };
    let mut again = Vec::new();
    if !payload.is_empty() {
        let mut room = [0; CHUNK_PREFIX_MAX];
        let used = chunk_prefix(payload.len(), &mut room);
        again = [&room[CHUNK_PREFIX_MAX - used..], &payload, END_OF_CHUNK].concat();
    }
    again.extend([LAST_CHUNK, &trailers, b"\r\n"].concat());
    let consumed = again.len();
    assert_eq!(decode(&again, 7), Ok(Outcome { payload, consumed, done: true, trailers }));
}

/// The strict grammar says the same, but for what is refused by a policy.
fn agrees(input: &[u8], outcome: &Result<Outcome, (Fault, usize)>) {
    let said = grammar::body::body(grammar::Framing::Chunked, input);
    match (outcome, &said.end) {
        (Ok(Outcome { payload, consumed, done: true, trailers }), Ok(end)) => {
            assert_eq!((payload, *consumed), (&said.content, end.bytes));
            wire::judge_trailers(&wire::trailer_lines(trailers), &end.trailers, &[]);
        }
        (Ok(Outcome { payload, done: false, .. }), Err(no)) => {
            assert_eq!(*payload, said.content);
            // A trailer line is judged when it ends: its fault may be there already.
            if matches!(no, grammar::No::Refused { .. }) {
                let ended = [input, b"\r\n"].concat();
                assert!(decode(&ended, ended.len()).is_err(), "{no:?} was not found: {}", input.escape_ascii());
            }
        }
        (Err(_), Err(grammar::No::Refused { .. })) => {}
        (Err((fault, _)), end) => {
            let case = Case { bytes: input, request: None, response: None };
            assert!(policy::allows(*fault, &case), "refused for {fault:?}, the grammar says {end:?}");
        }
        (Ok(outcome), end) => panic!("taken as {outcome:?}, the grammar says {end:?}"),
    }
}
