// Load client for etcd, with etcd's own clientv3. It is built together with closed_loop.go.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"strings"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

var (
	mode     = flag.String("mode", "put", "put, get, local, lock or lockone")
	underWay = flag.Int("under-way", 1, "")
)

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
		note(counts, begun, do())
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
	measure(*underWay, func(w int) map[int]int64 { return work(clients[w%len(clients)], w) }, func() {})
}
