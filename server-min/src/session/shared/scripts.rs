//! What changes Redis: each a Lua script, so that a change, its index and its announcement are one
//! step for everybody, and one round trip for us.
//!
//! What a record becomes is decided in Rust, from the record that was read. A script compares what is
//! there with what was read, byte for byte, and answers with what is there where it differs.
//!
//! A Redis that is full (`maxmemory`, `noeviction`) refuses a script whose first write may take memory. What
//! changes or closes a session begins with a ZREM, which may not: so a full Redis takes no new sessions, and
//! still hears of those it has.

use redis::Script;

/// Entries of the list of closings that are kept for nodes that were away for a while.
pub(super) const CLOSINGS_KEPT: usize = 10_000;

pub(super) struct Scripts {
    pub(super) create: Script,
    pub(super) update: Script,
    pub(super) close: Script,
    pub(super) lock: Script,
    pub(super) unlock: Script,
    pub(super) count: Script,
    pub(super) mend: Script,
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        Scripts {
            create: Script::new(CREATE),
            update: Script::new(UPDATE),
            close: Script::new(CLOSE),
            lock: Script::new(LOCK),
            unlock: Script::new(UNLOCK),
            count: Script::new(COUNT),
            mend: Script::new(MEND),
        }
    }
}

/// `made`, `exists` or `full`.
const CREATE: &str = r"
-- KEYS: record, open sessions. ARGV: record, its ttl, updatedAt, entry, bound, channel
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
    return redis.call('EXISTS', KEYS[1]) == 1 and 'exists' or 'full'
end
if not redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2], 'NX') then return 'exists' end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
redis.call('PUBLISH', ARGV[6], ARGV[1])
return 'made'";

/// 1, or what is there instead of what was expected: a record, or nothing.
const UPDATE: &str = r"
-- KEYS: record, open sessions, connected. ARGV: expected, new, updatedAt, entry, channel, 1 if connected
local there = redis.call('GET', KEYS[1])
if there ~= ARGV[1] then return there end
redis.call('ZREM', KEYS[2], ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[4])
if ARGV[6] == '1' then redis.call('SADD', KEYS[3], ARGV[4]) end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
redis.call('PUBLISH', ARGV[5], ARGV[2])
return 1";

/// As [`UPDATE`]. A record that has expired is gone, and its session still to be closed: then whoever
/// takes its entry out is the one who did. One that is there is counted until the end of the quarter of an
/// hour in which it expires.
const CLOSE: &str = r"
-- KEYS: record, open sessions, closings, connected, closed
-- ARGV: expected, new, entry, channel, closings kept, by, closing
local there = redis.call('GET', KEYS[1])
if there and there ~= ARGV[1] then return there end
local open = redis.call('ZREM', KEYS[2], ARGV[3])
redis.call('SREM', KEYS[4], ARGV[3])
if there then
    local over = redis.call('TIME')[1] + redis.call('TTL', KEYS[1])
    redis.call('HINCRBY', KEYS[5], over - over % 900 + 900, 1)
    redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
    redis.call('PUBLISH', ARGV[4], ARGV[2])
elseif open == 0 then
    return false
end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'by', ARGV[6], 'closing', ARGV[7])
redis.call('PUBLISH', KEYS[3], ARGV[7])
return 1";

/// 1 where the lock is ours now, or still.
const LOCK: &str = r"
-- KEYS: lock. ARGV: token, milliseconds
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if holder then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return 1";

/// Only who holds it may give it back.
const UNLOCK: &str = r"
-- KEYS: lock. ARGV: token
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

/// Open, connected and closed ones. The quarters of an hour that are over go out of the count.
const COUNT: &str = r"
-- KEYS: open sessions, connected, closed
local now, closed, quarters = tonumber(redis.call('TIME')[1]), 0, redis.call('HGETALL', KEYS[3])
for i = 1, #quarters, 2 do
    if tonumber(quarters[i]) > now then
        closed = closed + quarters[i + 1]
    else
        redis.call('HDEL', KEYS[3], quarters[i])
    end
end
return {redis.call('ZCARD', KEYS[1]), redis.call('SCARD', KEYS[2]), closed}";

/// Some of the connected, without those that are not open; where the next step begins, 0 at the end.
const MEND: &str = r"
-- KEYS: connected, open sessions. ARGV: where to begin, how many
local page = redis.call('SSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
for _, entry in ipairs(page[2]) do
    if not redis.call('ZSCORE', KEYS[2], entry) then redis.call('SREM', KEYS[1], entry) end
end
return page[1]";
