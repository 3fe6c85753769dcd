//! A phone with one frame under way, while the phones of other server-ids send as fast as it goes. It has a thread of its own
//! here, so that it does not wait until the generator has handled the flood. It may still wait for a processor: on two of them the
//! flood's thread, this one and the program under test compete, and what it notices is that, too.

use std::thread;

use super::dial::Dialler;
use super::echo::{self, Next};
use super::{Figures, flood};
use crate::Result;
use crate::case::Order;

pub(crate) fn play(order: &Order) -> Result<Figures> {
    let server = order.case.binaries;
    thread::scope(|scope| {
        let bystander = scope.spawn(|| {
            Dialler::beside(order)
                .and_then(|mut dialler| echo::play(order, &mut dialler, server..server + 1, 1, 1, Next::Same))
                .map_err(|error| error.to_string())
        });
        let flood = flood::play(order, flood::Direction::Up);
        let noticed = bystander.join().map_err(|_| "the bystander's thread panicked")?;
        let mut figures = flood?;
        let quantiles =
            noticed?.into_iter().filter(|(name, _)| name.starts_with('p') && name.ends_with("_us"));
        figures.extend(quantiles);
        Ok(figures)
    })
}
