// Load client for ZooKeeper, with ZooKeeper's own Java client. The program keeps operations under way, and prints
// "begin", "end" and one JSON object as the load clients of pfsb bench do, with the same buckets of latencies
// (pfsb/bench/histogram.py).
//
// ZooKeeperLoad KIND ADDRESS SESSIONS UNDER_WAY SECONDS WARMUP COUNT KEYS VALUE_BYTES

import java.lang.management.ManagementFactory;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import org.apache.zookeeper.*;

public class ZooKeeperLoad {
    static final int SUB_BUCKETS = 64;
    static final AtomicLongArray histogram = new AtomicLongArray(SUB_BUCKETS * 60);
    static final AtomicLong errors = new AtomicLong(), issued = new AtomicLong();
    static volatile String firstError = "";
    static volatile boolean measuring, stopping;
    static String kind;
    static long count;
    static int keys;
    static byte[] value;

    static int bucket(long ns) {
        int shift = Math.max(0, 64 - Long.numberOfLeadingZeros(ns) - 7);
        return shift * SUB_BUCKETS + (int) (ns >> shift);
    }

    static double cpuSeconds() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
            .getProcessCpuTime() / 1e9;
    }

    static ZooKeeper open(String address) throws Exception {
        CountDownLatch connected = new CountDownLatch(1);
        ZooKeeper session = new ZooKeeper(address, 20000, event -> {
            if (event.getState() == Watcher.Event.KeeperState.SyncConnected) connected.countDown();
        });
        if (!connected.await(20, TimeUnit.SECONDS)) throw new Exception("no connection to " + address);
        return session;
    }

    static boolean goesOn() {
        return !stopping && (count == 0 || issued.incrementAndGet() <= count);
    }

    static void answered(int code, long begun) {
        if (!measuring) return;
        if (code == 0) histogram.incrementAndGet(bucket(System.nanoTime() - begun));
        else {
            errors.incrementAndGet();
            firstError = KeeperException.Code.get(code).toString();
        }
    }

    // Runs one operation after the other, each from the callback of the one before.
    static void next(ZooKeeper session, CountDownLatch done) {
        if (!goesOn()) { done.countDown(); return; }
        long begun = System.nanoTime();
        String key = "/k/" + ThreadLocalRandom.current().nextInt(keys);
        if (kind.equals("put")) {
            session.setData(key, value, -1, (code, p, c, s) -> { answered(code, begun); next(session, done); }, null);
            return;
        }
        // A linearizable read: the server catches up with the leader before it answers what is behind the sync.
        if (kind.equals("get")) session.sync(key, (code, p, c) -> { }, null);
        session.getData(key, false, (code, p, c, d, s) -> { answered(code, begun); next(session, done); }, null);
    }

    // The recipe of ZooKeeper's documentation: the client with the lowest number holds the lock, and each client watches
    // the number before its own.
    static void lockAgainAndAgain(ZooKeeper session, String lock, CountDownLatch done) {
        try {
            while (goesOn()) {
                long begun = System.nanoTime();
                String mine = session.create(lock + "/n-", new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE,
                    CreateMode.EPHEMERAL_SEQUENTIAL);
                waitFor(session, lock, mine.substring(lock.length() + 1));
                session.delete(mine, -1);
                answered(0, begun);
            }
        } catch (KeeperException | InterruptedException e) {
            errors.incrementAndGet();
            firstError = e.toString();
        }
        done.countDown();
    }

    static void waitFor(ZooKeeper session, String lock, String mine) throws KeeperException, InterruptedException {
        for (;;) {
            TreeSet<String> waiting = new TreeSet<>(session.getChildren(lock, false));
            String before = waiting.lower(mine);
            if (before == null) return;
            CountDownLatch changed = new CountDownLatch(1);
            if (session.exists(lock + "/" + before, event -> changed.countDown()) != null) changed.await();
        }
    }

    static void create(ZooKeeper session, String path) throws Exception {
        try {
            session.create(path, new byte[0], ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT);
        } catch (KeeperException.NodeExistsException e) {
            // the node was made by an earlier run
        }
    }

    static void fill(ZooKeeper session) throws Exception {
        if (session.exists("/k", false) != null) return;
        create(session, "/k");
        Semaphore room = new Semaphore(256);
        for (int i = 0; i < keys; i++) {
            room.acquire();
            session.create("/k/" + i, value, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT,
                (code, p, c, name) -> room.release(), null);
        }
        room.acquire(256);
    }

    public static void main(String[] words) throws Exception {
        kind = words[0];
        int sessions = Integer.parseInt(words[2]), underWay = Integer.parseInt(words[3]);
        double seconds = Double.parseDouble(words[4]), warmup = Double.parseDouble(words[5]);
        count = Long.parseLong(words[6]);
        keys = Integer.parseInt(words[7]);
        value = new byte[Integer.parseInt(words[8])];
        Arrays.fill(value, (byte) 'v');
        ZooKeeper[] all = new ZooKeeper[sessions];
        for (int i = 0; i < sessions; i++) all[i] = open(words[1]);
        fill(all[0]);
        boolean locks = kind.startsWith("lock");
        if (locks) create(all[0], "/locks");
        CountDownLatch done = new CountDownLatch(underWay);
        Runnable[] starts = new Runnable[underWay];
        for (int i = 0; i < underWay; i++) {
            ZooKeeper session = all[i % sessions];
            String lock = "/locks/" + (kind.equals("lockone") ? "one" : "l" + i);
            if (locks) create(session, lock);
            starts[i] = locks ? new Thread(() -> lockAgainAndAgain(session, lock, done))::start
                              : () -> next(session, done);
        }
        if (count == 0) {
            for (Runnable start : starts) start.run();
            Thread.sleep((long) (warmup * 1000));
        }
        measuring = true;
        System.out.println("begin");
        System.out.flush();
        long begun = System.nanoTime();
        double cpuBegun = cpuSeconds();
        if (count > 0) {
            for (Runnable start : starts) start.run();
            done.await();
        } else {
            Thread.sleep((long) (seconds * 1000));
        }
        measuring = false;
        double took = (System.nanoTime() - begun) / 1e9, cpu = cpuSeconds() - cpuBegun;
        System.out.println("end");
        System.out.flush();
        stopping = true;
        StringJoiner counts = new StringJoiner(", ");
        long operations = 0;
        for (int i = 0; i < histogram.length(); i++) {
            long n = histogram.get(i);
            operations += n;
            if (n > 0) counts.add("[" + i + ", " + n + "]");
        }
        System.out.printf(Locale.ROOT, "{\"client\": \"java\", \"operations\": %d, \"errors\": %d, \"first_error\": \"%s\", "
            + "\"seconds\": %.6f, \"cpu_seconds\": %.6f, \"histogram\": [%s]}%n", operations, errors.get(),
            firstError.replace("\"", "'"), took, cpu, counts);
        System.out.flush();
        for (ZooKeeper session : all) session.close(1000);
        Runtime.getRuntime().halt(0);
    }
}
