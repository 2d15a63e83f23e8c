-- A tuner's database as the release with schema 1 wrote it, three of its pairs kept.
BEGIN TRANSACTION;
CREATE TABLE bucket_samples (
	id INTEGER NOT NULL,
	geometry VARCHAR(128) NOT NULL,
	device VARCHAR(128) NOT NULL,
	build VARCHAR(128) NOT NULL,
	bucket VARCHAR(128) NOT NULL,
	time FLOAT NOT NULL,
	q_lens TEXT NOT NULL,
	kv_lens TEXT NOT NULL,
	attention_us FLOAT NOT NULL,
	layers INTEGER NOT NULL,
	source VARCHAR(8) NOT NULL,
	PRIMARY KEY (id)
);
INSERT INTO "bucket_samples" VALUES(1,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',1800000000.0,'[128,1,1,1,1]','[256,256,256,256,256]',4000.0,8,'default');
INSERT INTO "bucket_samples" VALUES(2,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',1800000001.0,'[128,1,1,1,1]','[256,256,256,256,256]',4000.0,8,'default');
INSERT INTO "bucket_samples" VALUES(3,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',1800000002.0,'[128,1,1,1,1]','[256,256,256,256,256]',4000.0,8,'default');
CREATE TABLE bucket_stats (
	geometry VARCHAR(128) NOT NULL,
	device VARCHAR(128) NOT NULL,
	build VARCHAR(128) NOT NULL,
	bucket VARCHAR(128) NOT NULL,
	hybrid BOOLEAN NOT NULL,
	records BIGINT NOT NULL,
	steps FLOAT NOT NULL,
	weight FLOAT NOT NULL,
	step_weight FLOAT NOT NULL,
	updated FLOAT NOT NULL,
	PRIMARY KEY (geometry, device, build, bucket)
);
INSERT INTO "bucket_stats" VALUES('q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',1,3,3.0,12000.0,3.0,1800000000.0);
CREATE TABLE decisions (
	id INTEGER NOT NULL,
	time FLOAT NOT NULL,
	kind VARCHAR(8) NOT NULL,
	alert BOOLEAN NOT NULL,
	geometry VARCHAR(128) NOT NULL,
	device VARCHAR(128) NOT NULL,
	build VARCHAR(128) NOT NULL,
	bucket VARCHAR(128) NOT NULL,
	trial INTEGER,
	config_short VARCHAR(160) NOT NULL,
	reason TEXT NOT NULL,
	pairs INTEGER NOT NULL,
	speedup FLOAT,
	lower_bound FLOAT,
	PRIMARY KEY (id)
);
INSERT INTO "decisions" VALUES(1,1800000000.0,'start',0,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',NULL,'','traffic seen, no study yet: default measured first',0,NULL,NULL);
INSERT INTO "decisions" VALUES(2,1800000000.0,'promote',0,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',5,'serial p32x128/1/1 d16x16/2/1 1cta 1:4 w0 s64 v2','100 of 100 pairs faster, evidence e^65.4',100,2.01109996759109499464e+00,1.98768064437964619983e+00);
INSERT INTO "decisions" VALUES(3,1800000000.0,'keep',0,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',NULL,'','trial 5 stays: no further gain was confirmed',0,NULL,NULL);
CREATE TABLE history (
	id INTEGER NOT NULL,
	time FLOAT NOT NULL,
	records BIGINT NOT NULL,
	trials BIGINT NOT NULL,
	promotions BIGINT NOT NULL,
	attention_us_default FLOAT,
	attention_us_tuned FLOAT,
	PRIMARY KEY (id)
);
CREATE TABLE messages (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	server VARCHAR(128) NOT NULL,
	sequence BIGINT NOT NULL,
	digest VARCHAR(32) NOT NULL,
	received FLOAT NOT NULL,
	records INTEGER NOT NULL,
	body BLOB,
	UNIQUE (server, sequence, digest)
);
CREATE TABLE meta (
	name VARCHAR(32) NOT NULL,
	value VARCHAR(128) NOT NULL,
	PRIMARY KEY (name)
);
INSERT INTO "meta" VALUES('schema','1');
INSERT INTO "meta" VALUES('id','37713075');
CREATE TABLE pairs (
	id INTEGER NOT NULL,
	trial_id INTEGER NOT NULL,
	phase VARCHAR(32) NOT NULL,
	baseline_us FLOAT NOT NULL,
	candidate_us FLOAT NOT NULL,
	batch VARCHAR(8) NOT NULL,
	time FLOAT NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(trial_id) REFERENCES trials (id)
);
INSERT INTO "pairs" VALUES(1,1,'screen',9.92907109142165836615e+02,1.00559867620376587637e+03,'eb37cb26',1800000000.0);
INSERT INTO "pairs" VALUES(2,1,'screen',1.00194278020915339768e+03,9.69680663553075532917e+02,'eb37cb26',1800000000.0);
INSERT INTO "pairs" VALUES(3,1,'screen',9.72369721207183374672e+02,985.154210594499,'eb37cb26',1800000000.0);
CREATE TABLE servers (
	server VARCHAR(128) NOT NULL,
	geometry VARCHAR(128) NOT NULL,
	device VARCHAR(128) NOT NULL,
	build VARCHAR(128) NOT NULL,
	table_version INTEGER NOT NULL,
	last_seen FLOAT NOT NULL,
	messages BIGINT NOT NULL,
	seen BIGINT NOT NULL,
	dropped BIGINT NOT NULL,
	records BIGINT NOT NULL,
	hybrid BIGINT NOT NULL,
	PRIMARY KEY (server, geometry, device, build)
);
INSERT INTO "servers" VALUES('server-1','q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test',0,1800000000.0,1,3,0,3,3);
CREATE TABLE tables (
	geometry VARCHAR(128) NOT NULL,
	device VARCHAR(128) NOT NULL,
	build VARCHAR(128) NOT NULL,
	version INTEGER NOT NULL,
	updated FLOAT NOT NULL,
	body BLOB NOT NULL,
	PRIMARY KEY (geometry, device, build, version)
);
INSERT INTO "tables" VALUES('q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test',1,1800000000.0,X'7B0A202022736368656D61223A20312C0A20202276657273696F6E223A20312C0A20202267656F6D65747279223A202271386B76346436342D667033322D6B76667033322D73312D772D312D6330222C0A202022646576696365223A2022746573742D6370753A6176783531323A32222C0A2020226275696C64223A20226370752D74657374222C0A20202275706461746564223A2022323032372D30312D31355430383A30303A30302E3030305A222C0A202022656E7472696573223A207B0A202020202270313238403235362B643440323536223A207B0A20202020202022636F6E666967223A207B0A20202020202020202270726566696C6C223A207B0A2020202020202020202022715F726F7773223A2033322C0A20202020202020202020226B765F726F7773223A203132382C0A2020202020202020202022737461676573223A20312C0A20202020202020202020227761727073223A20310A20202020202020207D2C0A2020202020202020226465636F6465223A207B0A2020202020202020202022715F726F7773223A2031362C0A20202020202020202020226B765F726F7773223A2031362C0A2020202020202020202022737461676573223A20322C0A20202020202020202020227761727073223A20310A20202020202020207D2C0A202020202020202022637461735F7065725F736D223A20312C0A20202020202020202270726566696C6C5F63746173223A20312C0A2020202020202020226465636F64655F63746173223A20342C0A2020202020202020226D61785F70726566696C6C5F7761766573223A20302C0A2020202020202020226465636F64655F73706C69745F746F6B656E73223A2036342C0A2020202020202020227669727475616C5F6465636F6465223A20322C0A2020202020202020227374726174656779223A202273657269616C220A2020202020207D2C0A2020202020202265766964656E6365223A207B0A2020202020202020227061697273223A203130302C0A2020202020202020227374657073223A20312C0A2020202020202020226D656469616E5F73706565647570223A20322E3031313039393936373539313039352C0A2020202020202020226C6F7765725F626F756E64223A20312E393837363830363434333739363436322C0A202020202020202022636F6E666964656E6365223A20302E39352C0A2020202020202020226D6574686F64223A20227265706C6179222C0A2020202020202020226D656173757265645F6174223A2022323032372D30312D31355430383A30303A30302E3030305A222C0A2020202020202020226275696C64223A20226370752D74657374222C0A202020202020202022747269616C223A20350A2020202020207D0A202020207D0A20207D0A7D0A');
CREATE TABLE trials (
	id INTEGER NOT NULL,
	geometry VARCHAR(128) NOT NULL,
	device VARCHAR(128) NOT NULL,
	build VARCHAR(128) NOT NULL,
	bucket VARCHAR(128) NOT NULL,
	number INTEGER NOT NULL,
	state VARCHAR(8) NOT NULL,
	config TEXT NOT NULL,
	origin VARCHAR(32) NOT NULL,
	reason TEXT NOT NULL,
	value FLOAT,
	confirmation INTEGER NOT NULL,
	verdict VARCHAR(16) NOT NULL,
	rechecks INTEGER NOT NULL,
	created FLOAT NOT NULL,
	updated FLOAT NOT NULL,
	PRIMARY KEY (id),
	UNIQUE (geometry, device, build, bucket, number)
);
INSERT INTO "trials" VALUES(1,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',0,'complete','{"prefill":{"q_rows":128,"kv_rows":64,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":32,"stages":2,"warps":1},"ctas_per_sm":2,"prefill_ctas":0,"decode_ctas":0,"max_prefill_waves":2,"decode_split_tokens":512,"virtual_decode":1,"strategy":"fused"}','default','',1.11269902530362879006e-02,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(2,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',1,'complete','{"prefill":{"q_rows":128,"kv_rows":64,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":32,"stages":2,"warps":1},"ctas_per_sm":2,"prefill_ctas":1,"decode_ctas":1,"max_prefill_waves":2,"decode_split_tokens":512,"virtual_decode":1,"strategy":"fused"}','paper 1:1','',-8.69597993524848168929e-04,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(3,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',2,'complete','{"prefill":{"q_rows":128,"kv_rows":64,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":32,"stages":2,"warps":1},"ctas_per_sm":1,"prefill_ctas":0,"decode_ctas":0,"max_prefill_waves":2,"decode_split_tokens":512,"virtual_decode":1,"strategy":"serial"}','serial','',-0.00324552608846435,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(4,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',3,'complete','{"prefill":{"q_rows":128,"kv_rows":64,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":32,"stages":2,"warps":1},"ctas_per_sm":2,"prefill_ctas":0,"decode_ctas":0,"max_prefill_waves":2,"decode_split_tokens":128,"virtual_decode":1,"strategy":"fused"}','finer split','',-6.81202035693989071951e-01,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(5,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',4,'complete','{"prefill":{"q_rows":128,"kv_rows":64,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":32,"stages":2,"warps":1},"ctas_per_sm":2,"prefill_ctas":0,"decode_ctas":0,"max_prefill_waves":0,"decode_split_tokens":0,"virtual_decode":1,"strategy":"fused"}','unsplit','',6.92354115997946550908e-03,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(6,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',5,'complete','{"prefill":{"q_rows":32,"kv_rows":128,"stages":1,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":2,"warps":1},"ctas_per_sm":1,"prefill_ctas":1,"decode_ctas":4,"max_prefill_waves":0,"decode_split_tokens":64,"virtual_decode":2,"strategy":"serial"}','sampler','',-7.2036996578514866929e-01,1,'promoted',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(7,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',6,'complete','{"prefill":{"q_rows":16,"kv_rows":256,"stages":1,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":2,"warps":1},"ctas_per_sm":2,"prefill_ctas":1,"decode_ctas":1,"max_prefill_waves":2,"decode_split_tokens":64,"virtual_decode":1,"strategy":"serial"}','sampler','',-7.03551358384850833438e-01,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(8,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',7,'complete','{"prefill":{"q_rows":128,"kv_rows":256,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":1,"warps":1},"ctas_per_sm":1,"prefill_ctas":1,"decode_ctas":4,"max_prefill_waves":4,"decode_split_tokens":32,"virtual_decode":2,"strategy":"fused"}','sampler','',-6.97551060406171652417e-01,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(9,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',8,'complete','{"prefill":{"q_rows":64,"kv_rows":256,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":1,"warps":1},"ctas_per_sm":2,"prefill_ctas":8,"decode_ctas":1,"max_prefill_waves":3,"decode_split_tokens":128,"virtual_decode":8,"strategy":"serial"}','sampler','',-6.93557165108827256005e-01,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(10,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',9,'complete','{"prefill":{"q_rows":32,"kv_rows":16,"stages":2,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":2,"warps":1},"ctas_per_sm":2,"prefill_ctas":1,"decode_ctas":4,"max_prefill_waves":1,"decode_split_tokens":512,"virtual_decode":1,"strategy":"fused"}','sampler','',2.90137420521885749935e-02,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(11,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',10,'complete','{"prefill":{"q_rows":64,"kv_rows":128,"stages":1,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":2,"warps":1},"ctas_per_sm":1,"prefill_ctas":1,"decode_ctas":2,"max_prefill_waves":0,"decode_split_tokens":32,"virtual_decode":8,"strategy":"serial"}','sampler','',-6.71990636631918158983e-01,0,'',0,1800000000.0,1800000000.0);
INSERT INTO "trials" VALUES(12,'q8kv4d64-fp32-kvfp32-s1-w-1-c0','test-cpu:avx512:2','cpu-test','p128@256+d4@256',11,'complete','{"prefill":{"q_rows":16,"kv_rows":256,"stages":1,"warps":1},"decode":{"q_rows":16,"kv_rows":16,"stages":2,"warps":1},"ctas_per_sm":1,"prefill_ctas":1,"decode_ctas":1,"max_prefill_waves":2,"decode_split_tokens":32,"virtual_decode":2,"strategy":"serial"}','sampler','',-7.13871451104614473948e-01,0,'',0,1800000000.0,1800000000.0);
CREATE INDEX samples_by_key ON bucket_samples (geometry, device, build, bucket, id);
CREATE INDEX ix_pairs_trial_id ON pairs (trial_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('messages',1);
COMMIT;
