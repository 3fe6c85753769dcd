//! When a collection that once held many gives its memory back.

/// Entries for which every collection may keep its memory.
const ALWAYS: usize = 64;

/// The room to shrink a collection of `used` entries to, if the room it has is much more than it needs. It stays well away from what
/// would make it grow again, so each entry pays for a constant share of what is moved.
#[must_use]
pub fn shrunk(used: usize, room: usize) -> Option<usize> {
    (room > ALWAYS && used < room / 8).then_some(used * 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_nearly_empty_and_not_small_shrinks() {
        for (used, room, to) in
            [(0, 64, None), (0, 65, Some(0)), (8, 65, None), (7, 65, Some(14)), (1000, 8008, Some(2000))]
        {
            assert_eq!(shrunk(used, room), to, "{used} of {room}");
        }
    }
}
