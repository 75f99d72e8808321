//! A server of names that knows a few, and questions to it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

use super::probe::{any, udp_socket};
use crate::netns::Netns;
use crate::{Error, Result};

/// Where servers of names listen.
pub const PORT: u16 = 53;
/// How often the server looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);
/// Questions sent before there is no answer.
const TRIES: usize = 20;

/// Answers questions for names it knows, and that there is no such name for others, until dropped.
#[derive(Debug)]
pub struct DnsServer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl DnsServer {
    /// Listens at port 53 of an address of a namespace. A name has addresses, each for so many seconds.
    pub fn serve(netns: &Netns, at: IpAddr, names: &[(&str, IpAddr, u32)]) -> Result<Self> {
        let socket = udp_socket(netns, SocketAddr::new(at, PORT))?;
        socket.set_read_timeout(Some(LOOK)).map_err(|error| Error::other(error.to_string()))?;
        let mut known: BTreeMap<String, Vec<(IpAddr, u32)>> = BTreeMap::new();
        for (name, address, ttl_s) in names {
            known.entry((*name).to_owned()).or_default().push((*address, *ttl_s));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                serve_one(&socket, &known);
            }
        });
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the question has failed by it.
            let _panicked = thread.join();
        }
    }
}

fn serve_one(socket: &UdpSocket, known: &BTreeMap<String, Vec<(IpAddr, u32)>>) {
    let mut buffer = [0; 512];
    let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
    let Some(reply) = Packet::parse(&buffer[..length]).ok().and_then(|asked| reply(asked, known)) else {
        return;
    };
    // Whoever asked asks again.
    let _gone = socket.send_to(&reply, from);
}

fn reply(asked: Packet<'_>, known: &BTreeMap<String, Vec<(IpAddr, u32)>>) -> Option<Vec<u8>> {
    let name = asked.questions.first()?.qname.clone();
    let wants_v4 = asked.questions.first()?.qtype == QTYPE::TYPE(TYPE::A);
    let mut reply = asked.into_reply();
    match known.get(&name.to_string()) {
        None => *reply.rcode_mut() = RCODE::NameError,
        Some(addresses) => {
            for (address, ttl_s) in addresses.iter().filter(|(address, _)| address.is_ipv4() == wants_v4) {
                let data = match address {
                    IpAddr::V4(address) => RData::A(A { address: address.to_bits() }),
                    IpAddr::V6(address) => RData::AAAA(AAAA { address: address.to_bits() }),
                };
                reply.answers.push(ResourceRecord::new(name.clone(), CLASS::IN, *ttl_s, data));
            }
        }
    }
    reply.build_bytes_vec_compressed().ok()
}

/// Asks a server from a namespace for the addresses of a name, of the family the server has.
pub fn look_up(netns: &Netns, server: IpAddr, name: &str) -> Result<Vec<IpAddr>> {
    let socket = udp_socket(netns, SocketAddr::new(any(server), 0))?;
    socket.set_read_timeout(Some(LOOK)).map_err(|error| Error::other(error.to_string()))?;
    let wrong = |error: &dyn std::fmt::Display| Error::other(format!("{name}: {error}"));
    let wanted = if server.is_ipv4() { TYPE::A } else { TYPE::AAAA };
    let mut query = Packet::new_query(1);
    let qname = Name::new(name).map_err(|error| wrong(&error))?;
    query.questions.push(Question::new(qname, QTYPE::TYPE(wanted), QCLASS::CLASS(CLASS::IN), false));
    let query = query.build_bytes_vec().map_err(|error| wrong(&error))?;
    let mut buffer = [0; 1500];
    for _ in 0..TRIES {
        socket.send_to(&query, (server, PORT)).map_err(|error| wrong(&error))?;
        if let Ok(length) = socket.recv(&mut buffer) {
            let answer = Packet::parse(&buffer[..length]).map_err(|error| wrong(&error))?;
            let addresses = answer.answers.iter().filter_map(|record| match &record.rdata {
                RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
                RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
                _ => None,
            });
            return Ok(addresses.collect());
        }
    }
    Err(wrong(&format!("{server} does not answer")))
}
