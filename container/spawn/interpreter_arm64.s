#include "textflag.h"

// The layout of header and operations is documented at program.OpSize.
//
// Registers: R20 header of the image, R19 current operation. A system call changes R0 only.

// func rawClone3(args unsafe.Pointer, size, code, image uintptr) (pid, errno uintptr)
//
// The system call itself is issued by the copied interpreter, because the child has no other code.
TEXT ·rawClone3(SB), NOSPLIT, $16-48
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	code+16(FP), R19
	MOVD	image+24(FP), R20
	MOVD	$435, R8 // clone3
	CALL	(R19)
	CMN	$4095, R0
	BCS	failed
	MOVD	R0, pid+32(FP)
	MOVD	ZR, errno+40(FP)
	RET
failed:
	NEG	R0, R0
	MOVD	ZR, pid+32(FP)
	MOVD	R0, errno+40(FP)
	RET

// func copyInterpreter(to *[interpreterSize]byte)
TEXT ·copyInterpreter(SB), NOSPLIT, $0-8
	MOVD	$·interpreter(SB), R0
	MOVD	to+0(FP), R1
	MOVD	$96, R2 // interpreterSize / 8
copy:
	MOVD.P	8(R0), R3
	MOVD.P	R3, 8(R1)
	SUB	$1, R2, R2
	CBNZ	R2, copy
	RET

// interpreter issues the clone that its caller has prepared, returns in the parent, and in the
// child runs the operations of the image at R20. It is copied and run elsewhere: no call, no data
// outside of the image, relative jumps only. The child uses no stack.
TEXT ·interpreter(SB), NOSPLIT|NOFRAME, $0-0
	SVC
	CBZ	R0, child
	RET
child:
	ADD	$64, R20, R19
step:
	ADD	$2, R19, R9   // kind of the argument
	ADD	$24, R19, R10 // its value
	ADD	$16, R20, R11 // where it goes
	MOVD	$6, R12
argument:
	MOVBU.P	1(R9), R13
	MOVD.P	8(R10), R14
	CBZ	R13, argumentReady
	CMP	$2, R13
	BLT	load64
	BEQ	load32
	CMP	$3, R13
	BEQ	load16
	MOVBU	(R14), R14
	B	argumentReady
load16:
	MOVHU	(R14), R14
	B	argumentReady
load32:
	MOVWU	(R14), R14
	B	argumentReady
load64:
	MOVD	(R14), R14
argumentReady:
	MOVD.P	R14, 8(R11)
	SUB	$1, R12, R12
	CBNZ	R12, argument
	MOVBU	(R19), R13
	CBZ	R13, syscall
	CMP	$2, R13
	BLT	jump
	BEQ	alu
	MOVD	16(R20), R15 // Fail: errno, or a negative result
	CMP	$0, R15
	BGE	report
	NEG	R15, R15
	B	report

syscall:
	MOVD	16(R20), R0
	MOVD	24(R20), R1
	MOVD	32(R20), R2
	MOVD	40(R20), R3
	MOVD	48(R20), R4
	MOVD	56(R20), R5
	MOVWU	8(R19), R8
	SVC
	CMN	$4095, R0
	BCS	syscallFailed
	MOVD	72(R19), R9
	CBZ	R9, advance
	MOVD	R0, (R9)
advance:
	ADD	$96, R19, R19
	B	step

syscallFailed:
	NEG	R0, R15
	ADD	$16, R19, R9
	MOVD	$4, R12
ignored:
	MOVHU.P	2(R9), R13
	CMP	R13, R15
	BEQ	ignore
	SUB	$1, R12, R12
	CBNZ	R12, ignored
	CMP	$4, R15 // EINTR: again, unless it is in the list
	BEQ	syscall
report:
	MOVWU	12(R19), R9
	MOVW	R9, 8(R20)
	MOVW	R15, 12(R20)
	MOVD	(R20), R0
	ADD	$8, R20, R1
	MOVD	$8, R2
	MOVD	$64, R8 // write
	SVC
exit:
	MOVD	$127, R0
	MOVD	$94, R8 // exit_group
	SVC
	B	exit
ignore:
	MOVD	72(R19), R9
	CBZ	R9, onError
	MOVD	R0, (R9)
onError:
	MOVD	80(R19), R19
	B	step

jump:
	MOVD	16(R20), R9
	MOVD	24(R20), R10
	AND	R10, R9, R9
	MOVD	32(R20), R10
	MOVBU	1(R19), R13
	CBZ	R13, equal
	CMP	$2, R13
	BLT	notEqual
	BEQ	less
	CMP	R10, R9
	BGE	taken
	B	advance
less:
	CMP	R10, R9
	BLT	taken
	B	advance
notEqual:
	CMP	R10, R9
	BNE	taken
	B	advance
equal:
	CMP	R10, R9
	BNE	advance
taken:
	MOVD	88(R19), R19
	B	step

alu:
	MOVD	16(R20), R9
	MOVD	24(R20), R10
	MOVBU	1(R19), R13
	CMP	$5, R13
	BLT	computed // move
	BEQ	add
	CMP	$7, R13
	BLT	sub
	BEQ	and
	CMP	$9, R13
	BLT	or
	BEQ	shiftLeft
	LSR	R10, R9, R9
	B	computed
add:
	ADD	R10, R9, R9
	B	computed
sub:
	SUB	R10, R9, R9
	B	computed
and:
	AND	R10, R9, R9
	B	computed
or:
	ORR	R10, R9, R9
	B	computed
shiftLeft:
	LSL	R10, R9, R9
computed:
	MOVD	72(R19), R10
	MOVD	R9, (R10)
	B	advance
	WORD $0x61727473
	WORD $0x002e656b
