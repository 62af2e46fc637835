// Command bbolt-peer is the other side of the differential tests: the real bbolt library behind four verbs.
package main

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"math/rand"
	"os"
	"strings"

	bolt "go.etcd.io/bbolt"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type settings struct {
	pageSize   int
	noFreelist bool
	seed       int64
	rounds     int
	kind       string
}

func run(arguments []string) error {
	if len(arguments) == 0 {
		return errors.New("usage: bbolt-peer make|write|check|dump [flags] FILE")
	}
	var with settings
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	flags.IntVar(&with.pageSize, "page-size", 4096, "page size of a new file")
	flags.BoolVar(&with.noFreelist, "no-freelist", false, "do not store the free list")
	flags.Int64Var(&with.seed, "seed", 1, "seed of the random history")
	flags.IntVar(&with.rounds, "rounds", 10, "transactions")
	flags.StringVar(&with.kind, "kind", "random", "random | nested | inline | big | holes | empty")
	if err := flags.Parse(arguments[1:]); err != nil {
		return err
	}
	path := flags.Arg(0)
	switch arguments[0] {
	case "make":
		return with.change(path, fixtures[with.kind])
	case "write":
		return with.change(path, random)
	case "check":
		return read(path, check)
	case "dump":
		return read(path, dump)
	}
	return fmt.Errorf("unknown verb %q", arguments[0])
}

var fixtures = map[string]func(*bolt.DB, settings) error{
	"random": random, "nested": nested, "inline": inline, "big": big, "holes": holes, "empty": empty,
}

func (with settings) change(path string, work func(*bolt.DB, settings) error) error {
	if work == nil {
		return fmt.Errorf("unknown kind %q", with.kind)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: with.pageSize, NoFreelistSync: with.noFreelist, NoSync: true})
	if err != nil {
		return err
	}
	if err := work(db, with); err != nil {
		return errors.Join(err, db.Close())
	}
	return db.Close()
}

func read(path string, look func(*bolt.Tx) error) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	return errors.Join(db.View(look), db.Close())
}

func check(tx *bolt.Tx) error {
	var found []error
	for err := range tx.Check() {
		found = append(found, err)
	}
	return errors.Join(found...)
}

// dump prints per bucket its path, its sequence number, the number of its values and an FNV-1a hash over them, each
// key and value preceded by its length.
func dump(tx *bolt.Tx) error {
	return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
		return dumpBucket([]string{hex.EncodeToString(name)}, bucket)
	})
}

func dumpBucket(path []string, bucket *bolt.Bucket) error {
	hash := fnv.New64a()
	count := 0
	var inner [][]byte
	err := bucket.ForEach(func(key, value []byte) error {
		if value == nil {
			inner = append(inner, key)
			return nil
		}
		count++
		fmt.Fprintf(hash, "%d:%s%d:%s", len(key), key, len(value), value)
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Printf("%s %d %d %016x\n", strings.Join(path, "/"), bucket.Sequence(), count, hash.Sum64())
	for _, name := range inner {
		if err := dumpBucket(append(path, hex.EncodeToString(name)), bucket.Bucket(name)); err != nil {
			return err
		}
	}
	return nil
}

// random puts and deletes in the buckets that are there and in three of its own, transaction by transaction.
func random(db *bolt.DB, with settings) error {
	source := rand.New(rand.NewSource(with.seed))
	for round := 0; round < with.rounds; round++ {
		err := db.Update(func(tx *bolt.Tx) error {
			names := [][]byte{[]byte("alpha"), []byte("beta"), []byte("gamma")}
			err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
				names = append(names, append([]byte(nil), name...))
				return nil
			})
			if err != nil {
				return err
			}
			bucket, err := tx.CreateBucketIfNotExists(names[source.Intn(len(names))])
			if err != nil {
				return err
			}
			return randomKeys(bucket, source)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func randomKeys(bucket *bolt.Bucket, source *rand.Rand) error {
	if _, err := bucket.NextSequence(); err != nil {
		return err
	}
	if source.Intn(3) == 0 {
		return deleteRun(bucket, source)
	}
	for count := source.Intn(600); count > 0; count-- {
		size := source.Intn(200)
		if source.Intn(50) == 0 {
			size = source.Intn(20000)
		}
		value := make([]byte, size)
		source.Read(value)
		key := fmt.Sprintf("key-%08d", source.Intn(5000))
		if err := bucket.Put([]byte(key), value); err != nil && !errors.Is(err, bolt.ErrIncompatibleValue) {
			return err
		}
	}
	return nil
}

func deleteRun(bucket *bolt.Bucket, source *rand.Rand) error {
	var keys [][]byte
	cursor := bucket.Cursor()
	key, value := cursor.Seek([]byte(fmt.Sprintf("key-%08d", source.Intn(5000))))
	for count := source.Intn(1500); count > 0 && key != nil; count-- {
		if value != nil {
			keys = append(keys, append([]byte(nil), key...))
		}
		key, value = cursor.Next()
	}
	for _, key := range keys {
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

func nested(db *bolt.DB, with settings) error {
	return db.Update(func(tx *bolt.Tx) error {
		top, err := tx.CreateBucket([]byte("top"))
		if err != nil {
			return err
		}
		source := rand.New(rand.NewSource(with.seed))
		for depth := 0; depth < 5; depth++ {
			if err := randomKeys(top, source); err != nil {
				return err
			}
			small, err := top.CreateBucket([]byte(fmt.Sprintf("inline-%d", depth)))
			if err != nil {
				return err
			}
			if err := small.Put([]byte("k"), []byte("v")); err != nil {
				return err
			}
			if top, err = top.CreateBucket([]byte("key-00002500-below")); err != nil {
				return err
			}
			if err := top.SetSequence(uint64(depth) + 40); err != nil {
				return err
			}
		}
		return top.Put([]byte("deepest"), []byte("value"))
	})
}

func inline(db *bolt.DB, with settings) error {
	return db.Update(func(tx *bolt.Tx) error {
		for number := 0; number < 300; number++ {
			bucket, err := tx.CreateBucket([]byte(fmt.Sprintf("bucket-%03d", number)))
			if err != nil {
				return err
			}
			for key := 0; key < number%7; key++ {
				if err := bucket.Put([]byte(fmt.Sprintf("key-%d", key)), []byte(strings.Repeat("v", number%19))); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func big(db *bolt.DB, with settings) error {
	source := rand.New(rand.NewSource(with.seed))
	return db.Update(func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucket([]byte("big"))
		if err != nil {
			return err
		}
		for number := 0; number < 40; number++ {
			value := make([]byte, source.Intn(1<<20))
			source.Read(value)
			key := append([]byte(fmt.Sprintf("key-%02d", number)), make([]byte, source.Intn(30000))...)
			if err := bucket.Put(key, value); err != nil {
				return err
			}
		}
		return nil
	})
}

// holes leaves more than 65535 free pages when the page size is 1024.
func holes(db *bolt.DB, with settings) error {
	fill := func(tx *bolt.Tx) error {
		bucket, err := tx.CreateBucket([]byte("filled"))
		if err != nil {
			return err
		}
		for number := 0; number < 70; number++ {
			if err := bucket.Put([]byte(fmt.Sprintf("key-%02d", number)), make([]byte, 1<<20)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := db.Update(fill); err != nil {
		return err
	}
	if err := db.Update(func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte("filled")) }); err != nil {
		return err
	}
	return random(db, with)
}

func empty(db *bolt.DB, with settings) error { return nil }
