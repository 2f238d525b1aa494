// The part that the load clients in Go share: a closed loop of workers, and what they report. The program prints
// "begin", "end" and one JSON object as the load clients of pfsb bench do, with the same buckets of latencies
// (pfsb/bench/histogram.py).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/bits"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const subBuckets = 64

var (
	endpoint    = flag.String("endpoint", "", "host:port")
	connections = flag.Int("connections", 1, "")
	seconds     = flag.Float64("seconds", 3, "measured time")
	warmup      = flag.Float64("warmup", 1, "time before that")
	count       = flag.Int64("count", 0, "if not 0: so many operations instead")
	keys        = flag.Int("keys", 10000, "")
	valueBytes  = flag.Int("value-bytes", 100, "")

	measuring, stopping int32
	issued, refused     int64
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

// note counts one operation in a worker's histogram, if time is measured now.
func note(counts map[int]int64, begun time.Time, err error) {
	if atomic.LoadInt32(&measuring) == 0 {
		return
	}
	if err != nil {
		atomic.AddInt64(&refused, 1)
		firstError.Store(err.Error())
	} else {
		counts[bucket(int64(time.Since(begun)))]++
	}
}

// measure runs workers, each of which returns its histogram, and prints the report. It calls stop when no more
// operations are to be begun.
func measure(workers int, work func(worker int) map[int]int64, stop func()) {
	firstError.Store("")
	var mutex sync.Mutex
	var running sync.WaitGroup
	total := map[int]int64{}
	start := func() {
		for w := 0; w < workers; w++ {
			running.Add(1)
			go func(w int) {
				defer running.Done()
				counts := work(w)
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
		running.Wait()
	} else {
		time.Sleep(time.Duration(*seconds * 1e9))
	}
	atomic.StoreInt32(&measuring, 0)
	took, cpu := time.Since(begun).Seconds(), cpuSeconds()-cpuBegun
	fmt.Println("end")
	atomic.StoreInt32(&stopping, 1)
	stop()
	running.Wait()
	histogram, operations := [][2]int64{}, int64(0)
	for b, n := range total {
		histogram = append(histogram, [2]int64{int64(b), n})
		operations += n
	}
	sort.Slice(histogram, func(i, j int) bool { return histogram[i][0] < histogram[j][0] })
	json.NewEncoder(os.Stdout).Encode(map[string]interface{}{
		"client": "go", "operations": operations, "errors": refused, "first_error": firstError.Load(),
		"seconds": took, "cpu_seconds": cpu, "histogram": histogram})
}
