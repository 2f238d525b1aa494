// Load client for etcd, with etcd's own clientv3. The program keeps operations under way, and prints "begin", "end" and
// one JSON object as the load clients of pfsb bench do, with the same buckets of latencies (pfsb/bench/histogram.py).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/bits"
	"math/rand"
	"os"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

const subBuckets = 64

var (
	endpoint    = flag.String("endpoint", "", "host:port")
	mode        = flag.String("mode", "put", "put, get, local, lock or lockone")
	connections = flag.Int("connections", 1, "")
	underWay    = flag.Int("under-way", 1, "")
	seconds     = flag.Float64("seconds", 3, "measured time")
	warmup      = flag.Float64("warmup", 1, "time before that")
	count       = flag.Int64("count", 0, "if not 0: so many operations instead")
	keys        = flag.Int("keys", 10000, "")
	valueBytes  = flag.Int("value-bytes", 100, "")

	measuring, stopping int32
	issued, errors      int64
	firstError          atomic.Value
)

func bucket(ns int64) int {
	shift := bits.Len64(uint64(ns)) - 7
	if shift < 0 {
		shift = 0
	}
	return shift*subBuckets + int(ns>>uint(shift))
}

func cpuSeconds() float64 {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

func fail(what string, err error) {
	fmt.Fprintln(os.Stderr, what, err)
	os.Exit(2)
}

// operation returns the function that one worker calls in a loop.
func operation(c *clientv3.Client, worker int) func() error {
	dice := rand.New(rand.NewSource(int64(worker) + time.Now().UnixNano()))
	value := strings.Repeat("v", *valueBytes)
	ctx := context.Background()
	key := func() string { return fmt.Sprintf("key-%08d", dice.Intn(*keys)) }
	switch *mode {
	case "put":
		return func() error { _, err := c.Put(ctx, key(), value); return err }
	case "get":
		return func() error { _, err := c.Get(ctx, key()); return err }
	case "local":
		return func() error { _, err := c.Get(ctx, key(), clientv3.WithSerializable()); return err }
	}
	session, err := concurrency.NewSession(c, concurrency.WithTTL(30))
	if err != nil {
		fail("no session:", err)
	}
	name := "/lock/one"
	if *mode == "lock" {
		name = fmt.Sprintf("/lock/%d", worker)
	}
	mutex := concurrency.NewMutex(session, name)
	return func() error {
		if err := mutex.Lock(ctx); err != nil {
			return err
		}
		return mutex.Unlock(ctx)
	}
}

func work(c *clientv3.Client, worker int) map[int]int64 {
	counts := map[int]int64{}
	do := operation(c, worker)
	for atomic.LoadInt32(&stopping) == 0 {
		if *count > 0 && atomic.AddInt64(&issued, 1) > *count {
			break
		}
		begun := time.Now()
		err := do()
		if atomic.LoadInt32(&measuring) == 0 {
			continue
		}
		if err != nil {
			atomic.AddInt64(&errors, 1)
			firstError.Store(err.Error())
		} else {
			counts[bucket(int64(time.Since(begun)))]++
		}
	}
	return counts
}

func main() {
	flag.Parse()
	clients := make([]*clientv3.Client, *connections)
	for i := range clients {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{*endpoint}, DialTimeout: 5 * time.Second})
		if err != nil {
			fail("cannot connect:", err)
		}
		clients[i] = c
	}
	firstError.Store("")
	var mutex sync.Mutex
	var workers sync.WaitGroup
	total := map[int]int64{}
	start := func() {
		for w := 0; w < *underWay; w++ {
			workers.Add(1)
			go func(w int) {
				defer workers.Done()
				counts := work(clients[w%len(clients)], w)
				mutex.Lock()
				defer mutex.Unlock()
				for b, n := range counts {
					total[b] += n
				}
			}(w)
		}
	}
	if *count == 0 {
		start()
		time.Sleep(time.Duration(*warmup * 1e9))
	}
	atomic.StoreInt32(&measuring, 1)
	fmt.Println("begin")
	begun, cpuBegun := time.Now(), cpuSeconds()
	if *count > 0 {
		start()
		workers.Wait()
	} else {
		time.Sleep(time.Duration(*seconds * 1e9))
	}
	atomic.StoreInt32(&measuring, 0)
	took, cpu := time.Since(begun).Seconds(), cpuSeconds()-cpuBegun
	fmt.Println("end")
	atomic.StoreInt32(&stopping, 1)
	workers.Wait()
	histogram, operations := [][2]int64{}, int64(0)
	for b, n := range total {
		histogram = append(histogram, [2]int64{int64(b), n})
		operations += n
	}
	sort.Slice(histogram, func(i, j int) bool { return histogram[i][0] < histogram[j][0] })
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"client": "go", "operations": operations, "errors": errors, "first_error": firstError.Load(),
		"seconds": took, "cpu_seconds": cpu, "histogram": histogram})
}
