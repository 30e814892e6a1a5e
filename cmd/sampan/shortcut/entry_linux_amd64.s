#include "textflag.h"

// entry is where the kernel starts a sampan that make has built: before anything of
// Go runs. When the process is to be cmd/oci, and its file is there (see kept), it
// becomes that at once; in any doubt it goes on as every Go program does, and Run
// says what is wrong.
//
// The stack: 0(SP) is argc, then come argv and the environment. What is needed lies
// below, from R13 on: the path at 0, struct stat at 128, pathSize and statSize long.
TEXT ·entry(SB), NOSPLIT|NOFRAME, $0-0
	MOVQ	SP, R12
	LEAQ	-512(SP), R13
	MOVQ	0(R12), AX
	CMPQ	AX, $1
	JLT	go
	LEAQ	8(R12), R15 // argv
	// Is argv[1] the verb?
	CMPQ	AX, $2
	JLT	name
	MOVQ	8(R15), SI
	MOVL	(SI), CX
	CMPL	CX, $0x0069636f // "oci\0"
	JNE	name
	ADDQ	$8, R15
	JMP	own
name:
	// Does argv[0] end in the link's name? CX is its last slash, or the start.
	MOVQ	0(R15), SI
	MOVQ	SI, CX
scan:
	MOVBLZX	(SI), AX
	TESTL	AX, AX
	JEQ	base
	INCQ	SI
	CMPL	AX, $47
	JNE	scan
	MOVQ	SI, CX
	JMP	scan
base:
	SUBQ	CX, SI
	CMPQ	SI, $10
	JNE	go
	MOVQ	(CX), AX
	MOVQ	$0x6f2d6e61706d6173, DX // "sampan-o"
	CMPQ	AX, DX
	JNE	go
	MOVWLZX	8(CX), AX
	CMPL	AX, $0x6963 // "ci"
	JNE	go
own:
	MOVL	$107, AX // geteuid
	SYSCALL
	TESTQ	AX, AX
	JNE	go
	// The directory must be root's alone.
	LEAQ	·programs(SB), DI
	LEAQ	128(R13), SI
	MOVL	$6, AX // lstat
	SYSCALL
	TESTQ	AX, AX
	JNE	go
	CMPL	(128+24)(R13), $0x41c0 // st_mode: a directory, 0700
	JNE	go
	CMPL	(128+28)(R13), $0 // st_uid
	JNE	go
	LEAQ	·self(SB), DI
	LEAQ	128(R13), SI
	MOVL	$4, AX // stat
	SYSCALL
	TESTQ	AX, AX
	JNE	go
	// The name: the directory, "/oci", and four numbers in hexadecimal.
	LEAQ	·programs(SB), SI
	MOVQ	R13, DI
copy:
	MOVBLZX	(SI), AX
	TESTL	AX, AX
	JEQ	slash
	MOVB	AX, (DI)
	INCQ	SI
	INCQ	DI
	JMP	copy
slash:
	MOVL	$0x69636f2f, (DI) // "/oci"
	ADDQ	$4, DI
	MOVQ	(128+0)(R13), R8 // st_dev
	MOVQ	(128+8)(R13), R9 // st_ino
	MOVQ	(128+48)(R13), R10 // st_size
	MOVQ	(128+104)(R13), R11 // st_ctim
	IMULQ	$1000000000, R11
	ADDQ	(128+112)(R13), R11
	MOVL	$4, DX
number:
	MOVB	$45, (DI) // a dash
	INCQ	DI
	MOVL	$16, CX
digit:
	ROLQ	$4, R8
	MOVQ	R8, AX
	ANDL	$15, AX
	ADDL	$48, AX
	CMPL	AX, $58
	JLT	put
	ADDL	$39, AX
put:
	MOVB	AX, (DI)
	INCQ	DI
	DECL	CX
	JNE	digit
	MOVQ	R9, R8
	MOVQ	R10, R9
	MOVQ	R11, R10
	DECL	DX
	JNE	number
	MOVB	$0, (DI)
	MOVQ	R13, DI
	LEAQ	128(R13), SI
	MOVL	$6, AX // lstat
	SYSCALL
	TESTQ	AX, AX
	JNE	go
	CMPL	(128+24)(R13), $0x8140 // a file, 0500
	JNE	go
	CMPL	(128+28)(R13), $0
	JNE	go
	MOVQ	0(R12), CX // the environment comes after argv and a zero
	LEAQ	16(R12)(CX*8), DX
	MOVQ	R13, DI
	MOVQ	R15, SI
	MOVL	$59, AX // execve: it returns when it has failed
	SYSCALL
go:
	MOVQ	R12, SP
	XORL	DX, DX
	JMP	_rt0_amd64_linux(SB)

DATA ·programs+0(SB)/8, $"/run/sam"
DATA ·programs+8(SB)/8, $"pan-oci."
DATA ·programs+16(SB)/8, $"programs"
DATA ·programs+24(SB)/8, $0
GLOBL ·programs(SB), RODATA|NOPTR, $32

DATA ·self+0(SB)/8, $"/proc/se"
DATA ·self+8(SB)/8, $"lf/exe\x00\x00"
GLOBL ·self(SB), RODATA|NOPTR, $16
