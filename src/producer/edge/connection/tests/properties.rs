//! Properties of a connection that hold for every input.

use std::time::Duration;

use proptest::prelude::*;

use super::owner::Owner;
use super::signals::Socket;

/// Pieces of requests, so that random input gets beyond the first line.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET /g HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /e HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n",
        "POST /refused HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        "POST /refused HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        "HEAD /h HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /last HTTP/1.0\r\n\r\n",
        "3;ext\r\nabc\r\n",
        "0\r\n\r\n",
        "0\r\nTrailer: x\r\n\r\n",
        "Host: h\r\n",
        "\r\n",
        "\n",
        "POST /e HTTP/1.1\r\n",
        "Content-Length: 3\r\n",
    ]);
    prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => (0..6000_usize).prop_map(|length| vec![b'x'; length]),
    ]
}

proptest! {
    #[test]
    fn any_split_of_the_same_bytes_gives_the_same_requests(
        pieces in prop::collection::vec(piece(), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..40),
        is_lazy in any::<bool>(),
    ) {
        let input = pieces.concat();
        let whole = Owner::outcome(&input, &[], false);
        prop_assert_eq!(&whole, &Owner::outcome(&input, &cuts, is_lazy));
        prop_assert_eq!(whole.2, Socket::Close);
    }

    #[test]
    fn a_connection_that_is_abandoned_ends(
        pieces in prop::collection::vec(piece(), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..20),
        reads in any::<bool>(),
        pause in 0..30_000_u64,
    ) {
        let pause = Duration::from_millis(pause);
        prop_assert!(Owner::abandoned(&pieces.concat(), &cuts, reads, pause));
    }

    #[test]
    fn single_bytes_give_the_same_requests(pieces in prop::collection::vec(piece(), 0..4)) {
        let input = pieces.concat();
        let all: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(Owner::outcome(&input, &[], true), Owner::outcome(&input, &all, true));
    }
}
