//! Splits of the same bytes: whatever arrives in whichever pieces, the verdict is one.

/// Lengths of the pieces in which to give `bytes`: whole, byte by byte (where that is not too slow), and at places that
/// depend on the content alone, so that an input that fails fails again.
pub fn splits(bytes: &[u8]) -> Vec<Vec<usize>> {
    let mut splits = vec![vec![bytes.len()]];
    if bytes.len() <= 2048 {
        splits.push(vec![1; bytes.len()]);
    }
    let mut state =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, &b| (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    for longest in [7, 64, 1500] {
        let (mut pieces, mut left) = (Vec::new(), bytes.len());
        while left > 0 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let piece = (1 + state as usize % longest).min(left);
            pieces.push(piece);
            left -= piece;
        }
        splits.push(pieces);
    }
    splits
}
